import { createHash, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { createSecureContext, TLSSocket } from "node:tls";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { errorTable, HawserError } from "../../../src/foundation/errors/index.js";
import { TlsCredentials } from "../../../src/foundation/tls/index.js";
import { type Answer, isBindable, nullRow } from "../../../src/nats/gateway/protocol/index.js";
import { CertificateAuthority, type Issued } from "../../support/certificate-authority.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { atDepth } from "../../support/depth.js";
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import { temporaryDirectory } from "../../support/temporary.js";
import { TlsRelay } from "../tls-relay.js";
import { int32, message } from "./frontend-messages.js";
import { connectionString, echo, KeepingLogger, startServer, textOf } from "./test-server.js";

const mib = 1024 * 1024;
const settings = "SELECT string_agg(name || '=' || setting, E'\\n' ORDER BY name) AS all FROM pg_settings";

let test: TestDatabase;
let role: string;

beforeAll(async () => {
  test = await testDatabase({ migrated: false });
  role = `caller_${test.name}`;
  await onServer(test.url, "CREATE EXTENSION dblink", `CREATE ROLE ${role} LOGIN`);
});

afterAll(async () => {
  await onServer(test.url, `DROP ROLE ${role}`);
  await test.drop();
});

/** A database session that may call the gateway through dblink. */
class Caller {
  readonly client: pg.Client;

  private constructor(client: pg.Client) {
    this.client = client;
  }

  static async connect(): Promise<Caller> {
    const client = new pg.Client({ connectionString: test.url });
    client.on("error", () => undefined);
    await client.connect();
    onTestFinished(() => client.end());
    return new Caller(client);
  }

  async open(connection: string): Promise<void> {
    await this.client.query("SELECT dblink_connect('gateway', $1)", [connection]);
  }

  async close(): Promise<void> {
    await this.client.query("SELECT dblink_disconnect('gateway')");
  }

  /** The value of the one row. */
  async call(query: string): Promise<unknown> {
    const { rows } = await this.client.query("SELECT r FROM dblink('gateway', $1) AS t(r text)", [query]);
    return rows[0]?.r;
  }
}

async function openCaller(connection: string): Promise<Caller> {
  const caller = await Caller.connect();
  await caller.open(connection);
  return caller;
}

const long = "ü€🚢x".repeat(5000);
const answers: Record<string, Answer> = {
  null: nullRow,
  long: { kind: "row", value: long },
  empty: { kind: "row", value: "" },
  error: { kind: "error", sqlstate: "NA002", message: "nobody is there", detail: "the detail", hint: "the hint" },
};

function answer(query: Uint8Array): Answer {
  return answers[textOf(query)] ?? { kind: "row", value: textOf(query) };
}

describe("dblink", () => {
  it("gets values, NULL and the empty text as they are, and keeps its settings", async () => {
    const server = await startServer({ answer });
    const caller = await Caller.connect();
    const before = await caller.client.query(settings);
    await caller.open(connectionString(server));
    expect(await caller.call("publish 🚢 'quoted' \\ ñ")).toBe("publish 🚢 'quoted' \\ ñ");
    expect(await caller.call("null")).toBeNull();
    expect(await caller.call("empty")).toBe("");
    expect(await caller.call("long")).toBe(long);
    expect((await caller.client.query(settings)).rows).toEqual(before.rows);
  });

  it("works for a role that is not superuser, which must prove the password", async () => {
    const server = await startServer({ answer });
    const caller = await Caller.connect();
    await caller.client.query(`SET ROLE ${role}`);
    await caller.open(connectionString(server));
    expect(await caller.call("x")).toBe("x");
    const open = "SELECT dblink_connect('unproved', 'host=127.0.0.1')";
    await expect(caller.client.query(open)).rejects.toMatchObject({ code: "2F003" });
  });

  it("raises errors with SQLSTATE, DETAIL and HINT, and the connection goes on", async () => {
    const server = await startServer({ answer });
    const caller = await openCaller(connectionString(server));
    await expect(caller.call("error")).rejects.toMatchObject({
      code: "NA002",
      message: "nobody is there",
      detail: "the detail",
      hint: "the hint",
    });
    const seen = await caller.client.query(`
      CREATE FUNCTION pg_temp.seen() RETURNS text[] LANGUAGE plpgsql AS $$
        DECLARE m text; d text; h text;
        BEGIN
          PERFORM * FROM dblink('gateway', 'error') AS t(r text);
          RETURN NULL;
        EXCEPTION WHEN SQLSTATE 'NA002' THEN
          GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
          RETURN ARRAY[m, d, h];
        END $$;
      SELECT pg_temp.seen() AS seen`);
    expect((seen as unknown as pg.QueryResult[])[1]?.rows).toEqual([
      { seen: ["nobody is there", "the detail", "the hint"] },
    ]);
    expect(await caller.call("x")).toBe("x");
  });

  it("hears of the limit on calls and goes on", async () => {
    const server = await startServer({ maxRequestBytes: mib });
    const caller = await openCaller(connectionString(server));
    const beyond = caller.client.query(`SELECT * FROM dblink('gateway', repeat('x', ${mib + 1})) AS t(r text)`);
    await expect(beyond).rejects.toMatchObject({
      code: errorTable.gateway_limit.sqlstate,
      message: expect.stringContaining(`the limit is ${mib}`),
    });
    expect(await caller.call("x")).toBe("x");
  });

  it("reports what is wrong with a login as 08001", async () => {
    const server = await startServer();
    const caller = await Caller.connect();
    for (const changes of [{ password: "wrong" }, { user: "postgres" }, { dbname: "other" }, { password: "" }]) {
      const opening = caller.open(connectionString(server, changes));
      await expect(opening, JSON.stringify(changes)).rejects.toMatchObject({ code: "08001" });
    }
    expect(server.sessionCount).toBe(0);
  });

  it("may ask for a newer version of the protocol, if its libpq can, and gets 3.0", async () => {
    const [version] = await rowsOf(test.url, "SELECT current_setting('server_version_num')::int AS number");
    const newest = (version?.["number"] as number) >= 180_000 ? " max_protocol_version=latest" : "";
    const server = await startServer();
    const caller = await openCaller(`${connectionString(server)}${newest}`);
    expect(await caller.call("x")).toBe("x");
  });

  it("sees that the server has gone, and connects to the next one", async () => {
    const first = await startServer();
    const caller = await openCaller(connectionString(first));
    expect(await caller.call("x")).toBe("x");
    await first.stop({ deadlineMs: 0 });
    await expect(caller.call("y")).rejects.toMatchObject({ message: expect.stringMatching(/is shutting down/) });
    await caller.close();
    await expect(caller.open(connectionString(first))).rejects.toMatchObject({ code: "08001" });
    const second = await startServer();
    await caller.open(connectionString(second));
    expect(await caller.call("z")).toBe("z");
  });

  it("serves 30 sessions at once, each with the answers to its own calls", async () => {
    const server = await startServer({
      answer: async (query) => {
        const value = createHash("sha256").update(query).digest("hex");
        await new Promise((resolve) => setImmediate(resolve));
        return { kind: "row", value };
      },
    });
    const callers = await Promise.all(Array.from({ length: 10 }, () => Caller.connect()));
    // Three named connections in each of 10 database sessions: the test's Postgres has 100 in all.
    await Promise.all(
      callers.map(async ({ client }, index) => {
        for (let n = 0; n < 3; n++) {
          await client.query("SELECT dblink_connect($1, $2)", [`c${n}`, connectionString(server)]);
        }
        const { rows } = await client.query(`
          SELECT bool_and(r = encode(sha256(convert_to('${index} ' || n || ' ' || i, 'UTF8')), 'hex')) AS same, count(*)::int
          FROM generate_series(0, 2) n, generate_series(1, 50) i,
          LATERAL dblink('c' || n, '${index} ' || n || ' ' || i) AS t(r text)`);
        expect(rows).toEqual([{ same: true, count: 150 }]);
      }),
    );
    expect(server.sessionCount).toBe(30);
  });
});

describe("dblink over TLS", () => {
  const authority = new CertificateAuthority();
  const ours = authority.issue(["localhost", "127.0.0.1"]);
  const source = ({ cert, key }: Issued) => ({ current: { context: createSecureContext({ cert, key }) } });

  function authorityFile(): string {
    const path = join(temporaryDirectory(), "authority.pem");
    writeFileSync(path, authority.certificate, { mode: 0o644 });
    return path;
  }

  it("encrypts with sslmode=require and verify-full, also what is large", async () => {
    const tls = new TlsCredentials({ cert: ours.cert, key: ours.key });
    const server = await startServer({ tls });
    const sslrootcert = authorityFile();
    for (const changes of [{ sslmode: "require" }, { sslmode: "verify-full", sslrootcert, host: "localhost" }]) {
      const caller = await openCaller(connectionString(server, changes));
      expect(await caller.call("x")).toBe("x");
      const { rows } = await caller.client.query(
        `SELECT r = repeat('abcdefgh', ${(4 * mib) / 8}) AS same FROM dblink('gateway', repeat('abcdefgh', ${(4 * mib) / 8})) AS t(r text)`,
      );
      expect(rows).toEqual([{ same: true }]);
      await caller.close();
    }
  });

  /** With `npm test` the first two. */
  const signatures = ["ecdsa-sha384", "rsa-sha256", "ecdsa-sha256", "rsa-sha512", "rsa-pss-sha256"] as const;
  it.each(signatures.slice(0, atDepth(20)))(
    "binds the login to a certificate signed with %s, and not to a relay's",
    async (signature) => {
      const signer = new CertificateAuthority("Signer", signature);
      const logger = new KeepingLogger();
      const server = await startServer({ tls: source(signer.issue(["localhost"])), logger });
      const bound = { sslmode: "require", channel_binding: "require" };
      const caller = await openCaller(connectionString(server, bound));
      expect(await caller.call("x")).toBe("x");
      await caller.close();
      await using relay = await TlsRelay.start(server.address.port, signer.issue(["localhost"]));
      const relayed = caller.open(connectionString(server, { ...bound, port: relay.port }));
      await expect(relayed).rejects.toMatchObject({
        code: "08001",
        detail: expect.stringContaining("was shown another certificate"),
      });
      expect(relay.seen).toContain("SCRAM-SHA-256-PLUS");
      expect(logger.lines).toContainEqual(expect.objectContaining({ level: "warn" }));
      // What the binding is for: without it the relay is let in.
      await caller.open(connectionString(server, { ...bound, channel_binding: "disable", port: relay.port }));
      await caller.call("a secret");
      expect(relay.seen).toContain("a secret");
    },
  );

  it("does not say the password to who asks for it in plain, if the login must be bound", async () => {
    const heard: Buffer[] = [];
    const own = ours;
    const stranger = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => {
        const secure = new TLSSocket(socket, { isServer: true, ...own, ALPNProtocols: ["postgresql"] });
        secure.on("error", () => undefined);
        // AuthenticationCleartextPassword, once the startup message is there.
        secure.once("data", () => secure.write(message("R", int32(3))));
        secure.on("data", (chunk: Buffer) => heard.push(chunk));
        socket.write("S");
      });
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void stranger.close());
    await once(stranger, "listening");
    const { port } = stranger.address() as AddressInfo;
    const caller = await Caller.connect();
    const server = await startServer({ tls: source(ours) });
    const opening = caller.open(connectionString(server, { port, sslmode: "require", channel_binding: "require" }));
    await expect(opening).rejects.toMatchObject({
      code: "08001",
      detail: expect.stringContaining("channel binding required"),
    });
    expect(Buffer.concat(heard).toString("latin1")).not.toContain("correct horse");
    expect(heard.length).toBeGreaterThan(0);
  });

  it("binds the login to the certificate that the connection was made with, while it is renewed", async () => {
    let issued = ours;
    const server = await startServer({
      tls: {
        get current() {
          const { current } = source(issued);
          // Renewed before the client proves anything.
          issued = authority.issue(["localhost"]);
          return current;
        },
      },
    });
    const caller = await Caller.connect();
    for (let round = 0; round < 3; round++) {
      await caller.open(connectionString(server, { sslmode: "require", channel_binding: "require" }));
      await caller.close();
    }
  });

  it("cannot bind the login to a certificate that was signed with Ed25519", async () => {
    const signer = new CertificateAuthority("Signer", "ed25519");
    const issued = signer.issue(["localhost"]);
    expect(isBindable(new X509Certificate(issued.cert).raw)).toBe(false);
    expect(isBindable(new X509Certificate(ours.cert).raw)).toBe(true);
    const server = await startServer({ tls: source(issued) });
    const caller = await Caller.connect();
    const opening = caller.open(connectionString(server, { sslmode: "require", channel_binding: "require" }));
    await expect(opening).rejects.toMatchObject({ code: "08001", detail: expect.stringContaining("digest") });
  });

  it("goes on without it if the server has none and the client does not insist", async () => {
    const server = await startServer();
    const caller = await openCaller(connectionString(server, { sslmode: "prefer" }));
    expect(await caller.call("x")).toBe("x");
    const strict = await Caller.connect();
    await expect(strict.open(connectionString(server, { sslmode: "require" }))).rejects.toMatchObject({
      code: "08001",
    });
  });

  it("is demanded, and its certificate is shown again to each connection: one of another authority is refused", async () => {
    let issued = new CertificateAuthority("Another authority").issue(["localhost"]);
    const server = await startServer({
      tls: {
        get current() {
          return source(issued).current;
        },
      },
    });
    const caller = await Caller.connect();
    await expect(caller.open(connectionString(server, { sslmode: "disable" }))).rejects.toMatchObject({
      code: "08001",
      detail: expect.stringContaining("accepts only TLS"),
    });
    const strict = { sslmode: "verify-full", sslrootcert: authorityFile(), host: "localhost" };
    await expect(caller.open(connectionString(server, strict))).rejects.toMatchObject({ code: "08001" });
    issued = ours;
    await caller.open(connectionString(server, strict));
    expect(await caller.call("x")).toBe("x");
  });
});

describe("a stop while calls are running", () => {
  it("answers them, sends idle sessions away, and takes nobody new", async () => {
    let finish: ((answer: Answer) => void) | undefined;
    const server = await startServer({
      answer: (query, session) => {
        if (textOf(query) !== "slow") return echo(query, session);
        return new Promise<Answer>((resolve) => {
          finish = resolve;
        });
      },
    });
    const [busy, idle] = await Promise.all([
      openCaller(connectionString(server)),
      openCaller(connectionString(server)),
    ]);
    const slow = busy.call("slow");
    slow.catch(() => undefined);
    await idle.call("x");
    await eventually("the call is under way", () => finish !== undefined);
    let stopped = false;
    const stopping = server.stop({ deadlineMs: 30_000 }).then(() => {
      stopped = true;
    });
    await expect(idle.call("y")).rejects.toMatchObject({ code: "57P01" });
    const late = await Caller.connect();
    await expect(late.open(connectionString(server))).rejects.toMatchObject({ code: "08001" });
    expect(stopped).toBe(false);
    finish?.({ kind: "row", value: "at last" });
    expect(await slow).toBe("at last");
    await stopping;
    expect(server.sessionCount).toBe(0);
  });

  it("tells them at the deadline that the outcome is unknown", async () => {
    let asked = 0;
    let reject = (_error: Error): void => {};
    const server = await startServer({
      answer: () => {
        asked += 1;
        return new Promise<Answer>((_resolve, rejected) => {
          reject = rejected;
        });
      },
    });
    const caller = await openCaller(connectionString(server));
    const call = expect(caller.call("slow")).rejects.toMatchObject({ code: errorTable.outcome_unknown.sqlstate });
    await eventually("the call is under way", () => asked === 1);
    await server.stop({ deadlineMs: 20 });
    await call;
    // What comes of the call later reaches nobody and does no harm.
    reject(new HawserError("nats_timeout", "too late"));
  });
});
