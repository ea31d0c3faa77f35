// One call with @grpc/grpc-js, a gRPC client nobody here wrote. The call comes as JSON on stdin, and not as arguments,
// which others can read; the outcome goes as JSON to stdout. See tests/kit/node_client.py for what is in both.

import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const call = JSON.parse(await text(process.stdin));
const definition = loadSync(call.proto, {
  includeDirs: [call.protos],
  keepCase: true,
  longs: Number,
  enums: String,
  bytes: String, // base64, both ways
});
const split = call.method.lastIndexOf("/");
const Service = call.method
  .slice(0, split)
  .split(".")
  .reduce((found, name) => found?.[name], grpc.loadPackageDefinition(definition));
const method = Service?.service[call.method.slice(split + 1)];
if (method === undefined) {
  throw new Error(`${call.proto} has no ${call.method}`);
}

const file = (name) => (name === null ? null : readFileSync(name));
const credentials =
  call.ca === null
    ? grpc.credentials.createInsecure()
    : grpc.credentials.createSsl(file(call.ca), file(call.key), file(call.certificate));
const client = new Service(call.target, credentials, { "grpc.enable_http_proxy": 0, ...call.options });
const metadata = new grpc.Metadata();
for (const [name, value] of Object.entries(call.metadata)) {
  metadata.set(name, name.endsWith("-bin") ? Buffer.from(value, "base64") : value);
}

const ended = new Promise((resolve) => {
  const responses = [];
  const done = ({ code, details, metadata: trailer }) => {
    const trailing = {};
    for (const [name, value] of Object.entries(trailer.getMap())) {
      trailing[name] = Buffer.isBuffer(value) ? value.toString("base64") : value;
    }
    resolve({ code, details, responses, trailing });
  };
  const options = { deadline: Date.now() + call.seconds * 1000 };
  const answer = (error, response) => {
    if (!error) responses.push(response);
  };
  const perform = client[call.method.slice(split + 1)].bind(client);
  let running;
  if (method.requestStream) {
    running = method.responseStream ? perform(metadata, options) : perform(metadata, options, answer);
    for (const request of call.requests) running.write(request);
    running.end();
  } else {
    const [request] = call.requests;
    running = method.responseStream ? perform(request, metadata, options) : perform(request, metadata, options, answer);
  }
  if (method.responseStream) {
    running.on("data", (response) => responses.push(response));
    running.on("error", () => {}); // the status says the same, and always comes
  }
  // For a unary answer the callback runs after this event: leave it its turn.
  running.on("status", (status) => setImmediate(() => done(status)));
});

process.stdout.write(JSON.stringify(await ended));
client.close();
