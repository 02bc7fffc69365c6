/**
 * The NATS server of the documentation's second CREATE SERVER: of the JetStream domain `hub`, over mutual TLS, for the
 * credentials that come first among those that it names.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type NatsConnection, nkeys } from "@nats-io/transport-node";
import { CertificateAuthority } from "../../support/certificate-authority.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";

/** The server, and what is needed to reach it. */
export interface Hub extends AsyncDisposable {
  readonly server: TestNatsServer;
  /** A client that knows nothing of ours. */
  readonly stock: NatsConnection;
  /** The directory with the files that the options name. */
  readonly secretsDirectory: string;
  /** The options of that CREATE SERVER that have to be others here. */
  readonly options: Readonly<Record<string, string>>;
}

/** Starts it. */
export async function startHub(): Promise<Hub> {
  const authority = new CertificateAuthority();
  const own = authority.issue(["127.0.0.1", "localhost"], { usage: "server" });
  const client = authority.issue(["hawser"], { usage: "client" });
  const [user, stranger] = [nkeys.createUser(), nkeys.createUser()].map((key) => ({
    name: key.getPublicKey(),
    seed: Buffer.from(key.getSeed()).toString(),
  })) as [{ name: string; seed: string }, { name: string; seed: string }];
  const server = await startNatsServer({
    config: `
      jetstream { domain: hub, store_dir: "$DIR/jetstream" }
      authorization { users: [ { nkey: ${user.name} }, { user: "stock", password: "stock" } ] }
      tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem", ca_file: "$DIR/ca.pem", verify: true, timeout: 30 }
    `,
    files: { "cert.pem": own.cert, "key.pem": own.key, "ca.pem": authority.certificate },
  });
  const secretsDirectory = mkdtempSync(join(tmpdir(), "hawser-seed-"));
  const path = (name: string, content?: string): string => {
    const file = join(secretsDirectory, name);
    if (content !== undefined) writeFileSync(file, content);
    return file;
  };
  const options = {
    host: server.host,
    port: `${server.port}`,
    tls_ca_path: path("ca", authority.certificate),
    tls_cert_path: path("cert", client.cert),
    tls_key_path: path("key", client.key),
    nkey_seed_path: path("nats_nkey_seed", ` ${user.seed}\n`),
    // These come after it, and would be refused.
    nkey_seed: stranger.seed,
    token_path: path("nats_token"),
    password_path: path("nats_password"),
  };
  const stock = await connect({
    servers: `${server.host}:${server.port}`,
    user: "stock",
    pass: "stock",
    tls: { ca: authority.certificate, cert: client.cert, key: client.key },
  });
  return {
    server,
    stock,
    secretsDirectory,
    options,
    async [Symbol.asyncDispose]() {
      await stock.close();
      await server[Symbol.asyncDispose]();
      rmSync(secretsDirectory, { recursive: true, force: true });
    },
  };
}
