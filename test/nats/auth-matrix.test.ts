import { join } from "node:path";
import { nkeys } from "@nats-io/transport-node";
import { describe, expect, it } from "vitest";
import { authModes, type NatsAuthMode } from "../../generated/ts/nats-options/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { atDepth } from "../support/depth.js";
import { NatsOperator } from "../support/nats-operator.js";
import { startNatsServer } from "../support/nats-server.js";
import { connectError, optionsFor, secretsDirectory } from "./support/connectors.js";

const authority = new CertificateAuthority();
const serverCertificate = authority.issue(["127.0.0.1"], { usage: "server" });
const clientCertificate = authority.issue(["hawser"], { usage: "client" });

const [nkeyInFile, nkeyInline, unknownNkey] = [nkeys.createUser(), nkeys.createUser(), nkeys.createUser()];
const seedOf = (key: typeof nkeyInFile): string => Buffer.from(key.getSeed()).toString();

const operator = new NatsOperator();

/** Files with credentials. White space around them counts for nothing. */
const files = {
  creds: operator.creds(nkeys.createUser()),
  "wrong-creds": new NatsOperator().creds(nkeys.createUser()),
  nkey: `${seedOf(nkeyInFile)}\n`,
  "wrong-nkey": `${seedOf(unknownNkey)}\n`,
  token: "  token-in-file\n",
  "wrong-token": "token-in-no-file\n",
  password: "password-in-file\r\n",
  "wrong-password": "password-in-no-file\n",
  "ca.pem": authority.certificate,
  "client.pem": clientCertificate.cert,
  "client.key": clientCertificate.key,
};

interface Mode {
  /** The configuration of a server that accepts these credentials and no others. */
  readonly server: string;
  readonly right: Readonly<Record<string, string>>;
  readonly wrong: Readonly<Record<string, string>>;
  /** Description of the refused credentials in the error. */
  readonly words: string;
}

const path = (name: keyof typeof files): string => `$SECRETS/${name}`;

const modes: Readonly<Record<NatsAuthMode, Mode>> = {
  creds_path: {
    server: operator.config(),
    right: { creds_path: path("creds") },
    wrong: { creds_path: path("wrong-creds") },
    words: "the JWT of option creds_path (it may be revoked, or its account may be unknown to the server)",
  },
  nkey_seed_path: {
    server: `authorization { users: [{ nkey: ${nkeyInFile.getPublicKey()} }] }`,
    right: { nkey_seed_path: path("nkey") },
    wrong: { nkey_seed_path: path("wrong-nkey") },
    words: "the NKey of option nkey_seed_path",
  },
  nkey_seed: {
    server: `authorization { users: [{ nkey: ${nkeyInline.getPublicKey()} }] }`,
    right: { nkey_seed: seedOf(nkeyInline) },
    wrong: { nkey_seed: seedOf(unknownNkey) },
    words: "the NKey of option nkey_seed",
  },
  token_path: {
    server: 'authorization { token: "token-in-file" }',
    right: { token_path: path("token") },
    wrong: { token_path: path("wrong-token") },
    words: "the token of option token_path",
  },
  token: {
    server: 'authorization { token: "token-inline" }',
    right: { token: "token-inline" },
    wrong: { token: "another-token" },
    words: "the token of option token",
  },
  user_password_path: {
    server: 'authorization { user: "alice", password: "password-in-file" }',
    right: { username: "alice", password_path: path("password") },
    wrong: { username: "alice", password_path: path("wrong-password") },
    words: "the user name and password of options username and password_path",
  },
  user_password: {
    server: 'authorization { user: "alice", password: "password-inline" }',
    right: { username: "alice", password: "password-inline" },
    wrong: { username: "alice", password: "another-password" },
    words: "the user name and password of options username and password",
  },
  none: {
    server: 'authorization { users: [{ user: "guest", password: "guest" }] }\nno_auth_user: guest',
    right: {},
    wrong: { token: "nobody-asked-for-it" },
    words: "the token of option token",
  },
};

const tlsOfServer =
  'tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem", ca_file: "$DIR/ca.pem", verify: true }';

const order = Object.keys(authModes) as NatsAuthMode[];

describe.each([false, true])("with mutual TLS %s", (mutualTls) => {
  const modesHere = order
    .map((mode, index) => ({ mode, higher: order[index - 1], lower: order[index + 1] }))
    .filter(({ mode }) => !mutualTls || mode === "token" || atDepth(10) === 10);
  it.each(modesHere)("authenticates by $mode: before $lower, after $higher", async ({ mode, higher, lower }) => {
    const { server: config, right, wrong, words } = modes[mode];
    await using server = await startNatsServer({
      config: mutualTls ? `${config}\n${tlsOfServer}` : config,
      files: {
        "cert.pem": serverCertificate.cert,
        "key.pem": serverCertificate.key,
        "ca.pem": authority.certificate,
      },
    });
    const secrets = secretsDirectory(files);
    const tls = mutualTls
      ? { tls_ca_path: path("ca.pem"), tls_cert_path: path("client.pem"), tls_key_path: path("client.key") }
      : {};
    const attempt = (...credentials: readonly Readonly<Record<string, string>>[]) => {
      const given = Object.entries(Object.assign({}, tls, ...credentials) as Record<string, string>);
      const options = given.map(([name, value]) => [name, value.replace("$SECRETS", secrets)]);
      return connectError(optionsFor(server, Object.fromEntries(options)), secrets);
    };

    expect(await attempt(right)).toBeUndefined();

    const refused = await attempt(wrong);
    expect(refused?.code).toBe("nats_unauthorized");
    expect(refused?.detail).toBe(`The server refused ${words}: "Authorization Violation".`);

    if (lower !== undefined) expect(await attempt(modes[lower].right, right)).toBeUndefined();
    if (higher !== undefined) {
      const first = await attempt(right, modes[higher].right);
      expect(first?.code).toBe("nats_unauthorized");
      expect(first?.detail).toContain(modes[higher].words);
    }
  });
});

describe("a server that demands credentials", () => {
  it("refuses a client without any, and the error says so", async () => {
    await using server = await startNatsServer({ config: modes.token.server });
    const error = await connectError(optionsFor(server));
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toContain("The server refused a client without credentials");
  });

  it("is not asked with a seed that is none", async () => {
    await using server = await startNatsServer({ config: modes.nkey_seed.server });
    const seed = seedOf(nkeyInline);
    const mistyped = seed.slice(0, 20) + (seed[20] === "A" ? "B" : "A") + seed.slice(21);
    const inline = await connectError(optionsFor(server, { nkey_seed: mistyped }));
    expect(inline?.code).toBe("nats_unauthorized");
    expect(inline?.message).toContain('option "nkey_seed" is not an NKey seed');

    const secrets = secretsDirectory({ seed: mistyped, account: seedOf(nkeys.createAccount()) });
    for (const name of ["seed", "account"]) {
      const inFile = await connectError(optionsFor(server, { nkey_seed_path: join(secrets, name) }), secrets);
      expect(inFile?.code).toBe("secret_file");
      expect(inFile?.message).toContain("does not hold an NKey seed of a user");
    }
  });
});
