/**
 * Credentials as an operator of NATS hands them out: `.creds` files, against a server in operator mode.
 */
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { nkeys } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { credsFile, NatsOperator, now } from "../support/nats-operator.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { connectError, next, optionsFor, secretsDirectory, testConnector } from "./support/connectors.js";

const operator = new NatsOperator();
const [alice, bob] = [nkeys.createUser(), nkeys.createUser()];
const revokedCreds = operator.creds(bob);
const day = 86_400;

let server: TestNatsServer;
beforeAll(async () => {
  server = await startNatsServer({ config: operator.config([bob]) });
});
afterAll(() => server[Symbol.asyncDispose]());

async function errorWith(content: string | Uint8Array) {
  const secrets = secretsDirectory({ creds: content });
  return connectError(optionsFor(server, { creds_path: join(secrets, "creds") }), secrets);
}

const refusedWith = (words: string): string =>
  `The server refused the JWT of option creds_path (${words}): "Authorization Violation".`;

describe("a .creds file", () => {
  it("lets its user in, also with the line ends of Windows", async () => {
    expect(await errorWith(operator.creds(alice))).toBeUndefined();
    expect(await errorWith(operator.creds(alice, { exp: now() + day }).replaceAll("\n", "\r\n"))).toBeUndefined();
  });

  it("that has expired is refused, and the error says when it has, and what to do", async () => {
    const exp = now() - day;
    const error = await errorWith(operator.creds(alice, { exp }));
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toBe(refusedWith(`it has expired at ${new Date(exp * 1000).toISOString()}`));
    expect(error?.remedy).toBe("Put a renewed .creds file in its place: it is read again at each attempt.");
  });

  it("that is not valid yet is refused, and the error says from when on it is", async () => {
    const nbf = now() + day;
    const error = await errorWith(operator.creds(alice, { nbf }));
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toBe(refusedWith(`it is valid from ${new Date(nbf * 1000).toISOString()} on`));
    expect(error?.remedy).toContain("Check the clocks");
  });

  it.each([
    ["that was revoked", () => revokedCreds],
    ["of another operator", () => new NatsOperator().creds(alice)],
    ["that nobody signed but its user", () => operator.creds(alice, {}, alice)],
  ])("%s is refused, and the error says where to look", async (_name, creds) => {
    const error = await errorWith(creds());
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toBe(refusedWith("it may be revoked, or of an account that the server does not know"));
    expect(error?.remedy).toContain("See why in the server's log.");
  });

  const seedOf = (key: typeof alice): string => Buffer.from(key.getSeed()).toString();
  const right = operator.creds(alice);
  it.each([
    ["a seed alone", seedOf(alice), "does not hold a JWT and a seed"],
    ["a JWT alone", right.split("\n***")[0]!, "does not hold a JWT and a seed"],
    ["a password", "swordfish\n", "does not hold a JWT and a seed"],
    [
      "a private key",
      `-----BEGIN PRIVATE KEY-----\n${"QUJD".repeat(20)}\n-----END PRIVATE KEY-----\n`,
      "does not hold",
    ],
    ["the seed of another user", right.replace(seedOf(alice), seedOf(bob)), "belong to different users"],
    [
      "the seed of an account",
      right.replace(seedOf(alice), seedOf(nkeys.createAccount())),
      "is not the NKey seed of a user",
    ],
    ["a JWT that says nothing", credsFile("e30.e30.AAAA", alice), "its JWT is not that of a NATS user"],
    ["no JSON", credsFile("a.b.c", alice), "its JWT is not that of a NATS user"],
    ["no UTF-8", Buffer.from([0xff, 0xfe]), "is not UTF-8"],
  ])("with %s is not used, and nothing of it is shown", async (_name, content, words) => {
    const error = await errorWith(content);
    expect(error?.code).toBe("secret_file");
    expect(error?.message).toContain('the file of option "creds_path" cannot be used: ');
    expect(error?.message).toContain(words);
    expect(error?.message).not.toMatch(/S[UA][A-Z2-7]{20}|eyJ|swordfish|QUJD/);
  });
});

it("an expiry ends the connection, and a renewed file is read at the next attempt", async () => {
  const secrets = secretsDirectory({ creds: operator.creds(alice, { exp: now() + 2 }) });
  const path = join(secrets, "creds");
  const { connector, logged } = testConnector({ secretsDirectories: [secrets] });
  const lost = next(connector, "lost");
  connector.configure(optionsFor(server, { creds_path: path }));
  await connector.ready();
  expect((await lost)[0].code).toBe("nats_unauthorized");
  expect((await lost)[0].detail).toContain("Authentication Expired");
  expect((await lost)[0].detail).toContain("it has expired at");
  await eventually("it is refused", () => logged.some(({ message }) => message === "no connection to NATS"));
  writeFileSync(`${path}.new`, operator.creds(alice, { exp: now() + day }));
  renameSync(`${path}.new`, path);
  await connector.connected();
  expect(JSON.stringify(logged)).not.toMatch(/SU[A-Z2-7]{56}|eyJ/);
});

it("a revocation ends the connection, and a new user's file is read at the next attempt", async () => {
  const own = new NatsOperator();
  await using trusting = await startNatsServer({ config: own.config() });
  const secrets = secretsDirectory({ creds: own.creds(alice) });
  const { connector } = testConnector({ secretsDirectories: [secrets] });
  connector.configure(optionsFor(trusting, { creds_path: join(secrets, "creds") }));
  await connector.ready();
  const lost = next(connector, "lost");
  const refused = next(connector, "failed");
  await trusting.reload(own.config([alice]));
  expect((await lost)[0].code).toMatch(/^nats_un/);
  expect((await refused)[0]).toMatchObject({ code: "nats_unauthorized", detail: expect.stringContaining("revoked") });
  writeFileSync(join(secrets, "creds"), own.creds(nkeys.createUser()));
  await connector.connected();
});
