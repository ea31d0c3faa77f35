// A certified OpenID provider on a free port of the loopback interface, for the tests of access tokens.
//
// Says {"issuer", "kids"} on stdout when it is ready. Every line on stdin is a command: "rotate" puts new signing keys in the
// place of the old ones and says {"kids"}. It ends when stdin does, so it cannot outlive the tests that started it.

import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

const AUDIENCE = 'aligner';
const SCOPES = 'align admin';
const RESOURCES = {
  'https://aligner.example.org/rs256': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'https://aligner.example.org/es256': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } },
  'https://aligner.example.org/eddsa': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'EdDSA' } } },
  'https://aligner.example.org/ed25519': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'Ed25519' } } },
  'https://aligner.example.org/ps256': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'PS256' } } },
  'https://aligner.example.org/opaque': { accessTokenFormat: 'opaque' },
  'https://another.example.org/': { accessTokenFormat: 'jwt', audience: 'another-service' },
};

console.info = console.error; // stdout is for the tests

let generation = 0;

function signingKeys() {
  generation += 1;
  const pairs = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ed: generateKeyPairSync('ed25519'),
  };
  return Object.entries(pairs).map(([name, { privateKey }]) => ({
    ...privateKey.export({ format: 'jwk' }), kid: `${name}-${generation}`, use: 'sig',
  }));
}

// The keys of a provider are fixed when it is made: for others there is another provider behind the same issuer.
function provider(issuer) {
  const keys = signingKeys();
  const client = {
    client_secret: 'only-for-tests', grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: SCOPES,
  };
  const made = new Provider(issuer, {
    clients: [
      { ...client, client_id: 'service-a' },
      { ...client, client_id: 'service-bound', tls_client_certificate_bound_access_tokens: true },
    ],
    jwks: { keys },
    scopes: SCOPES.split(' '),
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'Ed25519', 'EdDSA'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: SCOPES, audience: AUDIENCE, accessTokenTTL: 20 * 60, ...RESOURCES[resource],
        }),
      },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        // As behind a proxy that ends TLS.
        getCertificate: (ctx) => {
          const der = ctx.get('x-client-certificate');
          return der ? new X509Certificate(Buffer.from(der, 'base64')) : undefined;
        },
      },
    },
  });
  return { handle: made.callback(), kids: keys.map(({ kid }) => kid) };
}

function say(words) {
  process.stdout.write(`${JSON.stringify(words)}\n`);
}

let current;
const server = createServer((request, response) => current.handle(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  current = provider(issuer);
  say({ issuer, kids: current.kids });
  const commands = createInterface({ input: process.stdin });
  commands.on('line', (line) => {
    if (line === 'rotate') {
      current = provider(issuer);
      say({ kids: current.kids });
    }
  });
  commands.on('close', () => process.exit(0));
});
