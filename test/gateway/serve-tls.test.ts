/**
 * TLS between Postgres and the gateway.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type GatewayTls, type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { type NatsDatabase, natsDatabase, patience } from "../support/gateway.js";
import { TlsRelay } from "./tls-relay.js";

const authority = new CertificateAuthority();
const stranger = new CertificateAuthority("Somebody else");
let directory: string;
let gateway: NatsDatabase;

beforeAll(async () => {
  // Postgres, which may be another user, reads the authority's certificate.
  directory = mkdtempSync(join(tmpdir(), "hawser-gateway-tls-"));
  chmodSync(directory, 0o755);
  writeFileSync(join(directory, "ca.pem"), authority.certificate);
  writeFileSync(join(directory, "stranger.pem"), stranger.certificate);
  gateway = await natsDatabase();
});

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

/** Serves with TLS while `use` runs. */
async function serving(
  tls: Partial<GatewayTls>,
  use: (serve: HawserServer) => Promise<void>,
  options = {},
): Promise<void> {
  await using serve = await startServer({
    databaseUrl: gateway.database.url,
    listen: "127.0.0.1:0",
    ...patience,
    tls: { ...authority.issue(["127.0.0.1", "localhost"]), ...tls },
    ...options,
  });
  await use(serve);
}

/** A call in a database session of its own. */
async function call(payload = "x"): Promise<void> {
  const session = await gateway.connect();
  try {
    await session.query("SELECT litmus_pgnats_reload_conf()");
    await session.query("SELECT nats_publish_text('tls.a', $1)", [payload]);
  } finally {
    await session.end();
  }
}

const portOf = (address: string): number => Number(address.split(":").at(-1));

/** Reads the mode of the youngest gateway: with a slow Postgres, rows of ended gateways stay for some time. */
const sslmode = async () =>
  (
    await gateway.client.query(
      "SELECT sslmode, root_certificate FROM hawser_bridge_data.gateways ORDER BY started_at DESC LIMIT 1",
    )
  ).rows[0];

it("is demanded if the gateway has a certificate, and not checked unless it is asked for", async () => {
  await serving(stranger.issue(["elsewhere"]), async () => {
    expect(await sslmode()).toEqual({ sslmode: "require", root_certificate: null });
    await call();
    // Without it the gateway does not talk.
    await gateway.client.query("UPDATE hawser_bridge_data.gateways SET sslmode = 'disable'");
    await expect(call()).rejects.toMatchObject({ code: "08001" });
  });
});

it.each((["verify-full", "verify-ca"] as const).slice(0, atDepth(10)))("checks the authority with %s", async (mode) => {
  const rootCertificate = join(directory, "ca.pem");
  const check = async () => {
    expect(await sslmode()).toEqual({ sslmode: mode, root_certificate: rootCertificate });
    await call();
  };
  // By name: libpq of Postgres 14 looks for no IP addresses in certificates.
  await serving({ sslmode: mode, rootCertificate }, check, { advertise: "localhost:0" });
  await serving({ sslmode: mode, rootCertificate: join(directory, "stranger.pem") }, async () => {
    await expect(call()).rejects.toMatchObject({
      code: "08001",
      detail: expect.stringMatching(/certificate verify failed/),
    });
  });
});

it("checks the name with verify-full alone", async () => {
  const tls = { ...authority.issue(["elsewhere"]), rootCertificate: join(directory, "ca.pem") };
  await serving({ ...tls, sslmode: "verify-ca" }, () => call());
  await serving({ ...tls, sslmode: "verify-full" }, async () => {
    await expect(call()).rejects.toMatchObject({
      code: "08001",
      detail: expect.stringContaining("does not match host name"),
    });
  });
});

it("lets the gateway listen beyond loopback, and is no need if the network is said to be trusted", async () => {
  const beyond = { listen: "0.0.0.0:0", advertise: "127.0.0.1:0" };
  await serving({}, () => call(), beyond);
  await serving({}, () => call(), { ...beyond, tls: undefined, allowPlaintext: true });
});

it("keeps out who stands between and ends it with a certificate of his own", async () => {
  const signer = new CertificateAuthority("Signer", "ecdsa-sha384");
  await serving(signer.issue(["127.0.0.1"]), async (serve) => {
    await call();
    await using relay = await TlsRelay.start(portOf(serve.address), stranger.issue(["127.0.0.1"]));
    // As if it stood on the way to the youngest gateway.
    const entry = "INSERT INTO hawser_bridge_data.gateways VALUES ('127.0.0.1', $1, 'require', NULL, now() + '1 day')";
    await gateway.client.query(entry, [relay.port]);
    await expect(call("top secret")).rejects.toMatchObject({
      code: "08001",
      detail: expect.stringContaining("was shown another certificate"),
    });
    expect(relay.seen).toContain("SCRAM-SHA-256-PLUS");
    expect(relay.seen).not.toContain("top secret");
    await gateway.client.query("DELETE FROM hawser_bridge_data.gateways");
  });
});

it("is refused with a certificate that libpq cannot bind a connection to", async () => {
  const tls = new CertificateAuthority("Signer", "ed25519").issue(["127.0.0.1"]);
  await expect(serving(tls, () => call())).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining("signed with Ed25519"),
  });
});

it("is refused with a key that does not fit", async () => {
  const { key } = authority.issue(["127.0.0.1"]);
  await expect(serving({ key }, () => call())).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining("tls.key is not the key of tls.cert"),
  });
  await eventually("no gateway is entered", async () => (await sslmode()) === undefined);
});

it("is refused if the mode and the root certificate do not go together", async () => {
  await expect(serving({ sslmode: "verify-ca" }, () => call())).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining("tls.sslmode verify-ca needs tls.rootCertificate"),
  });
  await expect(serving({ rootCertificate: "/ca.pem" }, () => call())).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining("tls.rootCertificate does not fit tls.sslmode require"),
  });
});
