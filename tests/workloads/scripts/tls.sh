#!/bin/sh
# nginx with TLS in a directory of its own, and a client of it: tls.sh DIRECTORY PORT COMMAND ARGUMENTS
dir=$1 port=$2
shift 2
cat >"$dir/nginx.conf" <<END
daemon off; worker_processes 1; pid $dir/pid; error_log $dir/error.log;
events { worker_connections 256; }
http { access_log off; client_body_temp_path $dir/body; proxy_temp_path $dir/proxy;
fastcgi_temp_path $dir/fastcgi; uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi; keepalive_requests 100000;
server { listen 127.0.0.1:$port ssl http2; ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem;
location /item { return 200 "answer answer answer answer\n"; } location / { return 404; } } }
END
nginx -p "$dir" -c "$dir/nginx.conf" &
until openssl s_client -connect "127.0.0.1:$port" </dev/null >/dev/null 2>&1; do sleep 0.1; done
"$@"
kill %1 2>/dev/null || kill $!
wait
