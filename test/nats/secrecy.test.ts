import { join } from "node:path";
import { inspect } from "node:util";
import { nkeys } from "@nats-io/transport-node";
import { describe, expect, it } from "vitest";
import { readCredentials } from "../../src/nats/connections/credentials.js";
import { SecretFiles } from "../../src/nats/connections/secret-files.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { NatsOperator } from "../support/nats-operator.js";
import { startNatsServer } from "../support/nats-server.js";
import { next, optionsFor, secretsDirectory, testConnector } from "./support/connectors.js";
import { type FakeServer, fakeServer, greeting, welcoming } from "./support/fake-server.js";

const user = nkeys.createUser();
const seed = Buffer.from(user.getSeed()).toString();
const creds = new NatsOperator().creds(user);
const secret = "swordfish-and-more";

/** Everything that can be seen of a value, hidden properties included. */
const everything = (value: unknown): string =>
  inspect(value, { depth: 30, showHidden: true, maxStringLength: null, maxArrayLength: null });

const modes = [
  { mode: "creds_path", hidden: seed, credentials: { creds_path: "$SECRETS/creds" } },
  { mode: "the JWT of creds_path", hidden: creds.split("\n")[1]!, credentials: { creds_path: "$SECRETS/creds" } },
  { mode: "nkey_seed_path", hidden: seed, credentials: { nkey_seed_path: "$SECRETS/seed" } },
  { mode: "nkey_seed", hidden: seed, credentials: { nkey_seed: seed } },
  { mode: "token_path", hidden: secret, credentials: { token_path: "$SECRETS/secret" } },
  { mode: "token", hidden: secret, credentials: { token: secret } },
  { mode: "user_password_path", hidden: secret, credentials: { username: "alice", password_path: "$SECRETS/secret" } },
  { mode: "user_password", hidden: secret, credentials: { username: "alice", password: secret } },
];

/** A connector with these credentials, off yet, and what turns it on. */
function connectorWithSecret({ credentials }: (typeof modes)[number]) {
  const secrets = secretsDirectory({ secret: `${secret}\n`, seed, creds });
  const given = Object.entries(credentials).map(([name, value]) => [name, value.replace("$SECRETS", secrets)]);
  const made = testConnector({ secretsDirectories: [secrets] });
  const begin = (server: FakeServer): void => made.connector.configure(optionsFor(server, Object.fromEntries(given)));
  return { ...made, begin };
}

it("no secret is shown by the objects of a connection", async () => {
  for (const mode of modes) {
    const server = await fakeServer((socket) => welcoming(socket, { nonce: "abc" }));
    const { connector, begin } = connectorWithSecret(mode);
    begin(server);
    const connection = await connector.connected();
    expect(server.received()).toContain("CONNECT");
    const shown = everything([connection, connector]);
    expect(shown).toContain("hawser test");
    expect(shown.includes(mode.hidden), mode.mode).toBe(false);
  }
});

it("no secret is shown by any error, event or log line, not even if the server repeats it", async () => {
  const shownBy = async (mode: (typeof modes)[number]): Promise<string> => {
    const { hidden } = mode;
    let attempts = 0;
    const server = await fakeServer((socket) => {
      attempts += 1;
      socket.write(greeting({ nonce: "abc", auth_required: true }));
      socket.once("data", () => {
        if (attempts === 1) return socket.end(`-ERR 'Authorization Violation for ${hidden}'\r\n`);
        if (attempts === 2) return socket.end(`-ERR 'No such thing as ${hidden}'\r\n`);
        socket.write("PONG\r\n");
        socket.once("data", () => {
          socket.write(`-ERR 'Permissions Violation for Publish to "any" by ${hidden}'\r\n`);
          socket.end(`-ERR 'User Authentication Expired ${hidden}'\r\n`);
        });
      });
    });
    const { connector, logged, begin } = connectorWithSecret(mode);
    const seen: unknown[] = [];
    connector.on("failed", (error) => seen.push(error, JSON.stringify(error)));
    connector.on("refused", (refusal) => seen.push(refusal));
    connector.on("lost", (error) => seen.push(error, JSON.stringify(error)));
    connector.on("connected", (connection) => connection.publish("any"));
    const lost = next(connector, "lost");
    begin(server);
    seen.push(await connector.ready().catch((error: unknown) => error));
    await lost;
    return everything([...seen, ...logged]);
  };
  for (const [index, shown] of (await Promise.all(modes.map(shownBy))).entries()) {
    for (const words of ["Authorization Violation", "No such thing", "Permissions Violation", "Expired"]) {
      expect(shown).toContain(words);
    }
    expect(shown.includes(modes[index]!.hidden), modes[index]!.mode).toBe(false);
  }
});

it("shows nothing of a private key in the objects of a connection", async () => {
  const authority = new CertificateAuthority();
  const server = authority.issue(["127.0.0.1"]);
  const client = authority.issue(["hawser"]);
  const secrets = secretsDirectory({ "ca.pem": authority.certificate, "own.pem": client.cert, "own.key": client.key });
  await using nats = await startNatsServer({
    config: 'tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem", ca_file: "$DIR/ca.pem", verify: true }',
    files: { "cert.pem": server.cert, "key.pem": server.key, "ca.pem": authority.certificate },
  });
  const { connector } = testConnector({ secretsDirectories: [secrets] });
  connector.configure(
    optionsFor(nats, {
      tls_ca_path: join(secrets, "ca.pem"),
      tls_cert_path: join(secrets, "own.pem"),
      tls_key_path: join(secrets, "own.key"),
    }),
  );
  const shown = inspect(await connector.connected(), {
    depth: 30,
    showHidden: true,
    getters: true,
    maxArrayLength: null,
  });
  const keyBytes = Buffer.from(client.key).subarray(60, 80);
  expect(shown).toContain("127.0.0.1");
  expect(shown.includes(keyBytes.toString("latin1"))).toBe(false);
  expect(shown.includes(keyBytes.toString("hex").replace(/..(?=.)/g, "$& "))).toBe(false);
});

describe("a secret that a text may hold by chance", () => {
  const here = { host: "127.0.0.1", port: 4222 };
  const concealing = async (token: string) => {
    const never = new AbortController().signal;
    return (await readCredentials(optionsFor(here, { token }), new SecretFiles([]), never)).conceal;
  };

  it.each([
    ["an", "an answer to 'an', and (an) Üban", "[hidden] answer to '[hidden]', and ([hidden]) Üban"],
    ["a.b", "a.b axb 'a.b' xa.b", "[hidden] axb '[hidden]' xa.b"],
    ["abcde", "abcdef abcde", "abcdef [hidden]"],
    ["abcdef", "abcdefg xabcdef", "[hidden]g x[hidden]"],
  ])("is concealed as a whole word if it is short, else everywhere: %s", async (secret, text, shown) => {
    expect((await concealing(secret))(text)).toBe(shown);
  });
});
