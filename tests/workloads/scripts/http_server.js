// A server of HTTP on 127.0.0.1: / and /items/NUMBER answer 200, everything else 404. `http_server.js PORT`
const http = require("http");

const server = http.createServer((request, response) => {
  const found = request.url === "/" || /^\/items\/\d+$/.test(request.url);
  response.writeHead(found ? 200 : 404, { "content-type": "text/plain" });
  response.end(found ? "a small page\n" : "not here\n");
});
server.listen(Number(process.argv[2]), "127.0.0.1");
