// An HTTPS server and a client of it in one process: N requests over C connections, each of another path.
const fs = require('fs');
const https = require('https');

const [key, cert, requests, connections] = process.argv.slice(2);

const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
  response.statusCode = request.url.startsWith('/missing') ? 404 : 200;
  response.end('answer '.repeat(20));
});

server.listen(0, '127.0.0.1', async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: Number(connections), rejectUnauthorized: false });
  const get = (number) => new Promise((resolve, reject) => {
    const path = `/${number % 10 === 9 ? 'missing' : 'item'}/${number}`;
    const options = { host: '127.0.0.1', port: server.address().port, path, agent };
    https.get(options, (response) => response.resume().on('end', resolve)).on('error', reject);
  });
  console.log('ready');
  await Promise.all(Array.from({ length: Number(requests) }, (_, number) => get(number)));
  agent.destroy();
  server.close();
});
