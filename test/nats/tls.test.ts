import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { HawserError } from "../../src/foundation/errors/index.js";
import { CertificateAuthority, type Issued } from "../support/certificate-authority.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { connectError, optionsFor, secretsDirectory, testConnector } from "./support/connectors.js";
import { fakeServer, greeting, welcoming } from "./support/fake-server.js";

const authority = new CertificateAuthority("Right authority");
const stranger = new CertificateAuthority("Other authority");
const good = authority.issue(["127.0.0.1", "localhost"], { usage: "server" });
const client = authority.issue(["hawser"], { usage: "client" });

interface TlsServer {
  readonly certificate?: Issued;
  readonly mutual?: boolean;
  readonly more?: string;
}

function startTlsServer({ certificate = good, mutual = false, more = "" }: TlsServer = {}): Promise<TestNatsServer> {
  const verify = mutual ? ', ca_file: "$DIR/ca.pem", verify: true' : "";
  return startNatsServer({
    config: `tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem"${verify} }\n${more}`,
    files: { "cert.pem": certificate.cert, "key.pem": certificate.key, "ca.pem": authority.certificate },
  });
}

interface TlsClient {
  readonly host?: string;
  /** Null: none. */
  readonly ca?: string | null;
  readonly own?: Issued;
  readonly options?: Readonly<Record<string, unknown>>;
}

/** The error of connecting with files of that content. */
function errorOf(
  server: { readonly host: string; readonly port: number },
  { host, ca = authority.certificate, own, options = {} }: TlsClient = {},
): Promise<HawserError | undefined> {
  const secrets = secretsDirectory({ "ca.pem": ca ?? "", "own.pem": own?.cert ?? "", "own.key": own?.key ?? "" });
  const given = {
    ...(ca === null ? {} : { tls_ca_path: join(secrets, "ca.pem") }),
    ...(own === undefined ? {} : { tls_cert_path: join(secrets, "own.pem"), tls_key_path: join(secrets, "own.key") }),
    ...(host === undefined ? {} : { host }),
    ...options,
  };
  return connectError(optionsFor(server, given), secrets);
}

describe("the server's certificate", () => {
  it.each(["127.0.0.1", "localhost"])("is accepted for %s, which it names", async (host) => {
    await using server = await startTlsServer();
    expect(await errorOf(server, { host })).toBeUndefined();
  });

  it.each([
    { host: "127.0.0.1", named: "localhost" },
    { host: "localhost", named: "127.0.0.1" },
    { host: "127.0.0.1", named: "nats.example.com" },
  ])("is refused for $host if it names $named only", async ({ host, named }) => {
    await using server = await startTlsServer({ certificate: authority.issue([named]) });
    const error = await errorOf(server, { host });
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toContain("The server's certificate is for another host");
    expect(error?.detail).toContain(host);
  });

  it.each([
    { what: "another authority", certificate: stranger.issue(["127.0.0.1"]), words: "not in tls_ca_path" },
    {
      what: "another authority of the same name",
      certificate: new CertificateAuthority("Right authority").issue(["127.0.0.1"]),
      words: "was not signed by the authority of that name",
    },
    {
      what: "the past",
      certificate: authority.issue(["127.0.0.1"], { fromDays: -3, untilDays: -2 }),
      words: "has expired",
    },
    {
      what: "a client",
      certificate: authority.issue(["127.0.0.1"], { usage: "client" }),
      words: "not made for servers",
    },
  ])("is refused if it is of $what", async ({ certificate, words }) => {
    await using server = await startTlsServer({ certificate });
    const error = await errorOf(server);
    expect(error?.code).toBe("nats_unauthorized");
    expect(error?.detail).toMatch(/^The server's certificate /);
    expect(error?.detail).toContain(words);
  });

  it("is not looked at with tls_insecure", async () => {
    await using server = await startTlsServer({
      certificate: stranger.issue(["nats.example.com"], { untilDays: -0.5 }),
    });
    expect(await errorOf(server, { ca: null, options: { tls_insecure: true } })).toBeUndefined();
  });
});

describe("a server that demands our certificate", () => {
  it("gets it, and refuses a client without it or with a wrong one, each time with an error that says so", async () => {
    await using server = await startTlsServer({ mutual: true });
    expect(await errorOf(server, { own: client })).toBeUndefined();
    for (let times = 0; times < 10; times++) {
      const error = await errorOf(server);
      expect(error?.code).toBe("nats_unauthorized");
      expect(error?.detail).toContain("requires a client certificate");
      expect(error?.remedy).toContain("tls_cert_path");
      const ofStranger = stranger.issue(["hawser"]);
      const ofPast = authority.issue(["hawser"], { fromDays: -3, untilDays: -2 });
      for (const own of [ofStranger, ofPast]) {
        const refused = await errorOf(server, { own });
        expect(refused?.code).toBe("nats_unauthorized");
        expect(refused?.detail).toContain("Our certificate (tls_cert_path) was refused");
      }
    }
  });
});

describe("the options' files", () => {
  const unread = { host: "127.0.0.1", port: 1 };

  const damaged = authority.certificate.replace(/\n[^\n]{10}/, "\nAAAAAAAAAA");
  const foreignKey = { cert: client.cert, key: good.key };
  const encrypted = authority.issue(["hawser"], { passphrase: "secret" });

  it.each<readonly [what: string, files: TlsClient, words: RegExp]>([
    ["an authority that is no PEM", { ca: "no certificate" }, /tls_ca_path.*contains no PEM certificate/],
    ["a damaged authority", { ca: damaged }, /tls_ca_path.*damaged/],
    [
      "a key that belongs to another certificate",
      { own: foreignKey },
      /tls_key_path.*is not the key of the first certificate in tls_cert_path/,
    ],
    ["an encrypted key", { own: encrypted }, /tls_key_path.*it is encrypted, which is not supported/],
    [
      "a certificate in place of the key",
      { own: { cert: client.cert, key: client.cert } },
      /tls_key_path.*contains no readable PEM private key/,
    ],
  ])("must not hold %s", async (_, files, words) => {
    const error = await errorOf(unread, files);
    expect(error?.code).toBe("secret_file");
    expect(error?.message).toMatch(words);
  });
});

describe("TLS on one side only", () => {
  it("is an error if the server demands it, before anything was sent", async () => {
    await using real = await startTlsServer();
    const fake = await fakeServer((socket) => socket.write(greeting({ tls_required: true })));
    for (const server of [real, fake]) {
      const error = await errorOf(server, { ca: null, options: { token: "in the clear" } });
      expect(error?.code).toBe("nats_unavailable");
      expect(error?.detail).toBe("The server requires TLS, which is off.");
      expect(error?.remedy).toContain("tls_ca_path");
    }
    expect(fake.received()).toBe("");
  });

  it("is an error if the server has none, before anything was sent", async () => {
    await using real = await startNatsServer();
    const fake = await fakeServer((socket) => welcoming(socket));
    for (const server of [real, fake]) {
      for (const options of [{}, { tls_insecure: true }]) {
        const ca = "tls_insecure" in options ? null : authority.certificate;
        const error = await errorOf(server, { ca, options: { ...options, token: "in the clear" } });
        expect(error?.code).toBe("nats_unavailable");
        expect(error?.detail).toContain("The server does not offer TLS, which is on");
      }
    }
    expect(fake.received()).toBe("");
  });

  it("sends no credentials to a server that says it has TLS and has none", async () => {
    const fake = await fakeServer((socket) => {
      welcoming(socket, { tls_required: true });
      socket.once("data", () => socket.write("PONG\r\n"));
    });
    const error = await errorOf(fake, { options: { token: "in the clear" } });
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.detail).toContain("TLS failed");
    expect(fake.received()).not.toContain("in the clear");
  });

  it("takes nothing that was said before TLS for said within it", async () => {
    const fake = await fakeServer((socket) => socket.write(`${greeting({ tls_required: true })}-ERR 'forged'\r\n`));
    const error = await errorOf(fake);
    expect(error?.detail).toContain("more than INFO before TLS");
  });

  it("is ours to choose if the server leaves the choice", async () => {
    await using server = await startTlsServer({ more: "allow_non_tls: true" });
    const secrets = secretsDirectory({ ca: authority.certificate });
    for (const tls of [true, false]) {
      const { connector } = testConnector({ secretsDirectories: [secrets] });
      connector.configure(optionsFor(server, tls ? { tls_ca_path: join(secrets, "ca") } : {}));
      const { protocol } = (await connector.connected()) as unknown as {
        protocol: { transport: { isEncrypted(): boolean } };
      };
      expect(protocol.transport.isEncrypted()).toBe(tls);
    }
  });
});
