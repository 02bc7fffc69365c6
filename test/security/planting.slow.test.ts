/**
 * A role without any grant plants operators, functions, aggregates and casts wherever Hawser's logins would find them, and
 * then everything runs as all of these logins: nothing that was planted is ever called.
 *
 * What is planted logs when it is called, which also a rollback, a read-only transaction or another login does not hide.
 * The server logs all statements, too, so that it is known how many were tried.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cancel,
  enqueue,
  Peer,
  type PeerOptions,
  type TransactionalMessage,
} from "../../src/jobs-and-peers/peer/index.js";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { commands } from "../../src/operating/cli/run.js";
import { hawser, startHawser } from "../cli/support/hawser.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { pageClient } from "../page/support/page-world.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";
import { copyPlanted, marker, type Planted, plant, plantCasts, prepare } from "./planter.js";

let postgres: OwnPostgres;
let nats: NatsConnection;
let planted: Planted[];
let version: number;
/** The database, as each of the logins that run Hawser. */
const urls = { superuser: "", bridge: "", peer: "" };

function as(role: string): string {
  return Object.assign(new URL(postgres.url), { username: role, password: role, pathname: "/app" }).href;
}

/** Everything that the server has logged. */
function log(): string {
  const directory = join(postgres.dataDirectory, "log");
  return readdirSync(directory)
    .map((file) => readFileSync(join(directory, file), "utf8"))
    .join("");
}

/** The calls of planted objects; with each the statement, which the server logs behind it. */
function calls(): string[] {
  const lines = log().split("\n");
  return lines.flatMap((line, at) => (line.includes(marker) ? [lines.slice(at, at + 8).join("\n")] : []));
}

/** The functions of pg_catalog that any statement of ours calls, by their names in the source. */
async function functionsCalled(): Promise<string[]> {
  const folders = ["src", "schema/functions", "generated/ts"];
  const files = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => join(folder, file)),
  );
  const called = new Set<string>();
  for (const file of files.filter((one) => /\.(ts|sql)$/.test(one))) {
    for (const [, name] of readFileSync(file, "utf8").matchAll(/\b([a-z_][a-z0-9_]*)\s*\(/g)) called.add(name!);
  }
  const known = await rowsOf(
    postgres.url,
    `SELECT DISTINCT p.proname::text AS name FROM pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace
        AND p.prorettype <> 'internal'::regtype AND p.proname = ANY ('{${[...called].join(",")}}')`,
  );
  return known.map((row) => String(row["name"]));
}

beforeAll(async () => {
  postgres = await ownPostgres();
  await onServer(
    postgres.url,
    "ALTER SYSTEM SET logging_collector = on",
    "ALTER SYSTEM SET log_statement = 'all'",
    "ALTER SYSTEM SET log_rotation_size = 0",
    "CREATE ROLE mallory LOGIN PASSWORD 'mallory'",
    "CREATE DATABASE app",
  );
  await postgres.kill("SIGINT");
  await postgres.start();
  nats = await connect({ servers: testNatsUrl() });
  const superuser = new URL(postgres.url).username;
  const superuserUrl = Object.assign(new URL(postgres.url), { pathname: "/app" }).href;
  Object.assign(urls, { superuser: superuserUrl, bridge: as("bridge"), peer: as("peer") });
  const [server] = await rowsOf(postgres.url, "SELECT current_setting('server_version_num')::int / 10000 AS version");
  version = Number(server!["version"]);
  // Before 15 everybody may create in public. From then on who owns a schema does, and who may create in the database.
  await onServer(urls.superuser, "GRANT CREATE ON DATABASE app TO mallory");
  const names = await functionsCalled();
  const client = new pg.Client(as("mallory"));
  await client.connect();
  await prepare(client);
  const schemas = [superuser, "bridge", "peer", ...(version < 15 ? ["public"] : [])];
  for (const schema of schemas.filter((one) => one !== "public"))
    await client.query(`CREATE SCHEMA ${schema}; GRANT USAGE ON SCHEMA ${schema} TO PUBLIC`);
  const [first, ...others] = schemas as [string, ...string[]];
  planted = [await plant(client, first, names)];
  await calling(urls.superuser, async (owner) => {
    for (const schema of others) {
      const casts = await plantCasts(client, schema);
      planted.push({ ...(await copyPlanted(owner, first, schema, names)), casts });
    }
  });
  await client.end();
}, 1_200_000);
afterAll(async () => {
  await nats?.close();
  await postgres?.[Symbol.asyncDispose]();
});

/** In a session that is as pinned as ours are: what a user calls on a path of his own is his affair. */
async function calling<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, options: "-c search_path=pg_catalog,pg_temp" });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

describe("an object that a role without rights has planted", () => {
  it("is called by a session that is not pinned", async () => {
    await rowsOf(urls.superuser, "SELECT 'pg_class'::regclass = 1259");
    await rowsOf(urls.superuser, "SELECT array_agg(n::text) FROM generate_series(1, 3) AS n");
    // Some that were copied.
    await rowsOf(urls.superuser, "SELECT 'pg_class'::regclass OPERATOR(peer.=) 1259");
    await rowsOf(urls.superuser, "SELECT peer.array_agg(n::text) FROM generate_series(1, 3) AS n");
    await rowsOf(urls.superuser, "SELECT peer.count('{1}'::int[])");
    await eventually("the log has them", async () => calls().length >= 5);
  });

  it("is never called by hawser serve, peers, subscriptions, or any command, as any login", async () => {
    const before = calls().length;
    const statementsBefore = statements();
    const run = (args: string[], databaseUrl: string, input = "") => hawser(args, { databaseUrl, input });
    const commandsRun = new Set<string>();
    const tried = async (args: string[], databaseUrl: string, status?: number) => {
      commandsRun.add(args[0]!);
      const end = await run(args, databaseUrl);
      if (status !== undefined && status !== end.status) throw new Error(`${args}: ${end.status}: ${end.stderr}`);
    };
    // A superuser prepares the database, in which all that was planted is.
    await tried(["init", "--dry-run"], urls.superuser, 0);
    await tried(["init"], urls.superuser, 0);
    await tried(["init"], urls.superuser, 0);
    await onServer(
      urls.superuser,
      "CREATE ROLE bridge LOGIN PASSWORD 'bridge' IN ROLE hawser_bridge, hawser_nats",
      "CREATE ROLE peer LOGIN PASSWORD 'peer' IN ROLE hawser_peer",
      "CREATE SCHEMA app",
      "CREATE TABLE app.taken (payload bytea)",
      "CREATE FUNCTION app.take(p bytea) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS 'INSERT INTO app.taken VALUES (p)'",
      "CREATE FUNCTION app.answer(p bytea) RETURNS bytea LANGUAGE sql SET search_path = pg_catalog AS 'SELECT p'",
      "CREATE FUNCTION app.fail(p bytea) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
    );
    await calling(urls.superuser, (client) => defineServer(client, testNatsUrl()));

    for (const databaseUrl of [urls.bridge, urls.superuser]) {
      await useServe(databaseUrl);
    }
    for (const databaseUrl of [urls.peer, urls.superuser]) {
      await usePeers(databaseUrl, { databaseUrl });
      await usePeers(databaseUrl, { databaseUrl, sessionUrl: databaseUrl });
      const pool = new pg.Pool({ connectionString: databaseUrl });
      await usePeers(databaseUrl, { pool });
      await pool.end();
    }
    for (const [login, databaseUrl] of Object.entries(urls)) {
      const own = login === "bridge" ? undefined : 0;
      await tried(["doctor"], databaseUrl);
      await tried(["topics"], databaseUrl, own);
      await tried(["peers"], databaseUrl, own);
      await tried(["pending"], databaseUrl, own);
      await tried(["secret", "list"], databaseUrl);
      await tried(["secret", "rotate"], databaseUrl);
      await tried(["send", "planted", "hello", "--quiet"], databaseUrl);
      const listen = ["listen", "planted", "--name", `planted-${login}`, "--durable", "--timeout", "1s"];
      // On a busy machine, a second may be over before the listener is known.
      await eventually("the listener is known, where this login may listen", async () => {
        await tried(listen, databaseUrl, own);
        return own === undefined || (await run(["send", "planted", "hello"], databaseUrl)).status === 0;
      });
      await tried(["send", "planted", "hello"], databaseUrl, own);
      await tried(["request", "planted", "hello", "--timeout", "100ms"], databaseUrl);
      await tried(["peers", "reassign", `planted-${login}`, "planted-heir", "--force"], databaseUrl);
      await tried(["peers", "forget", `planted-${login}`], databaseUrl);
      await tried(["top", "--once"], databaseUrl, 0);
      await usePage(databaseUrl);
      commandsRun.add("page");
      await tried(["dead", "list"], databaseUrl, own);
      await tried(["dead", "retry", "--all"], databaseUrl);
      await tried(["dead", "discard", "--all"], databaseUrl, own);
      await tried(["dead", "edit", "1", "--text", "x"], databaseUrl);
      await tried(["dead", "retention"], databaseUrl, own);
      await tried(["dead", "retention", "30"], databaseUrl);
      await tried(["audit"], databaseUrl, own);
      await tried(["audit", "retention"], databaseUrl, own);
      await tried(["outbox", "status"], databaseUrl);
      await tried(["outbox", "list"], databaseUrl);
      await tried(["outbox", "cancel", "1"], databaseUrl);
      await tried(["outbox", "replay", "--since", "10m", "--core"], databaseUrl);
      await tried(["enqueue", "planted", "x"], databaseUrl);
      await tried(["jobs", "status"], databaseUrl);
      await tried(["jobs", "list"], databaseUrl);
      await tried(["jobs", "show", "1"], databaseUrl);
      await tried(["jobs", "cancel", "1"], databaseUrl);
      await tried(["jobs", "cancel", "--topic", "planted"], databaseUrl);
      await tried(["jobs", "import", "pg-boss"], databaseUrl);
      await tried(["why", "1"], databaseUrl);
      await tried(["why", "--topic", "planted"], databaseUrl);
      await useMcp(databaseUrl);
      commandsRun.add("mcp");
      await tried(["schedules"], databaseUrl);
      await tried(["schedules", "run", "planted"], databaseUrl);
      await tried(["schedules", "remove", "planted"], databaseUrl);
      await tried(["streams", "list"], databaseUrl);
      await tried(["streams", "create", "PLANTED", "--subject", "planted.>", "--storage", "memory"], databaseUrl);
      await tried(["streams", "delete", "PLANTED"], databaseUrl);
      await tried(["init"], databaseUrl);
      await tried(["init", "--no-nats"], databaseUrl);
      await tried(["uninstall", "--dry-run"], databaseUrl);
      commandsRun.add("serve");
    }
    await tried(["extension", "print", "sql"], urls.superuser, 0);
    await installByExtension(commandsRun);
    await useDev(commandsRun);
    await tried(["uninstall"], urls.superuser);

    expect([...commandsRun].sort()).toEqual(Object.keys(commands).sort());
    const total = (kind: keyof Planted) => planted.reduce((sum, one) => sum + one[kind], 0);
    console.log(
      `Postgres ${version}: ${total("operators")} operators, ${total("functions")} functions, ${total("aggregates")} ` +
        `aggregates and ${total("casts")} casts planted in ${planted.length} schemas; ` +
        `${statements() - statementsBefore} statements run; ${calls().length - before} calls of what was planted`,
    );
    expect(calls().slice(before)).toEqual([]);
  }, 600_000);
});

function statements(): number {
  return log().match(/ (statement|execute [^:]*): /g)?.length ?? 0;
}

/** The gateway's functions, subscriptions with dead letters and their retry, responders, a failover of the lead. */
async function useServe(databaseUrl: string): Promise<void> {
  await using serve = await startServer({ databaseUrl, listen: "127.0.0.1:0", monitor: "127.0.0.1:0" });
  await using second = await startServer({ databaseUrl, listen: "127.0.0.1:0" });
  expect(second.address).not.toBe(serve.address);
  const subject = `planted.${Math.random().toString(36).slice(2)}`;
  await calling(urls.superuser, async (client) => {
    const ask = (call: string, ...values: unknown[]) => client.query(`SELECT public.${call}`, values);
    await eventually("the gateway answers", async () =>
      ask("nats_publish_text($1, 'a')", subject).then(
        () => true,
        () => false,
      ),
    );
    await ask("nats_subscribe($1, 'app.take(bytea)'::regprocedure)", `${subject}.take`);
    await ask("nats_subscribe($1, 'app.fail(bytea)'::regprocedure)", `${subject}.fail`);
    await ask("litmus_pgnats_register_responder($1, 'app.answer(bytea)'::regprocedure)", `${subject}.answer`);
    await eventually("a message is run", async () => {
      nats.publish(`${subject}.take`, "a");
      nats.publish(`${subject}.fail`, "a");
      return (await client.query("SELECT 1 FROM app.taken")).rowCount !== 0;
    });
    const answer = await nats.request(`${subject}.answer`, "a", { timeout: 20_000 });
    expect(answer.string()).toBe("a");
    await ask("nats_put_text('planted', 'k', 'v')");
    await ask("nats_get_text('planted', 'k')");
    await ask("nats_request_text($1, 'a', 5000)", `${subject}.answer`);
    await ask("litmus_pgnats_reload_conf_force()");
    await eventually("a dead letter is there", async () => {
      return (await client.query("SELECT 1 FROM hawser_data.dead_letters")).rowCount !== 0;
    });
    const retried = await hawser(["dead", "retry", "--topic", `${subject}.fail`], { databaseUrl: urls.superuser });
    expect(retried.stderr).toBe("");
    await ask("nats_unsubscribe($1, 'app.take(bytea)'::regprocedure)", `${subject}.take`);
    await ask("nats_unsubscribe($1, 'app.fail(bytea)'::regprocedure)", `${subject}.fail`);
    await client.query("TRUNCATE app.taken");
    await useOutboxAndStream(client, `${subject}.placed`);
    await client.query("TRUNCATE app.taken");
  });
}

/** Messages that commit with a transaction, at once and later, again and not at all; the stream that they land in, read. */
async function useOutboxAndStream(client: pg.Client, subject: string): Promise<void> {
  const manager = await jetstreamManager(nats);
  const stream = subject.replaceAll(".", "_");
  await manager.streams.add({ name: stream, subjects: [subject] });
  const ask = async (call: string, ...values: unknown[]) =>
    (await client.query(`SELECT ${call} AS it`, values)).rows[0].it;
  const since = new Date();
  const headers = JSON.stringify({ planted: ["yes"] });
  await ask("hawser.enqueue($1, 'a', stream => false, headers => $2, key => 'k')", subject, headers);
  const trace = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;
  await client.query("SELECT set_config('hawser.traceparent', $1, false)", [trace]);
  await ask("hawser.enqueue($1, 'b', stream => true, key => 'k', message_id => 'm')", subject);
  await client.query("RESET hawser.traceparent");
  await ask("hawser.enqueue_batch($1, ARRAY['c', 'd'], stream => false)", subject);
  const commented = `SELECT hawser.enqueue_batch($1, ARRAY['e', 'f'], stream => true) /*traceparent='${trace}',tracestate='a%3D1'*/`;
  await client.query(commented, [subject]);
  await ask("hawser.enqueue($1, 'later', stream => true, deliver_at => now() + interval '0.2 seconds')", subject);
  const never = await ask("hawser.enqueue($1, '-', stream => true, deliver_at => now() + interval '1 day')", subject);
  expect(await ask("hawser.cancel($1::bigint)", never)).toBe("cancelled");
  const landed = async () => (await manager.streams.info(stream)).state.messages;
  await eventually("all are in the stream", async () => (await landed()) === 7);
  expect(Number(await ask("hawser.outbox_replay($1, $2, core => true)", since, subject))).toBeGreaterThan(0);
  await ask("public.nats_subscribe_stream($1, 'app.take(bytea)'::regprocedure, 'planted', key_token => 1)", stream);
  const taken = async () => Number(await ask("(SELECT count(*) FROM app.taken)"));
  await eventually("the stream is run", async () => (await taken()) >= 7);
  await ask("public.nats_seek_stream('planted', '1')");
  await eventually("it is run again", async () => (await taken()) >= 14);
  await client.query("SELECT * FROM hawser.stream_status, hawser.outbox_status, hawser.later_messages");
  await ask("public.nats_unsubscribe_stream('planted')");
  await manager.streams.delete(stream);
}

/** Every tool. */
async function useMcp(databaseUrl: string): Promise<void> {
  const calls = [
    ["why", { id: "1" }],
    ["why", { topic: "planted" }],
    ["pending", {}],
    ["dead", {}],
    ["dead", { payload: true }],
    ["job", { id: "1", payload: true }],
    ["doctor", {}],
  ].map(([name, args], id) => ({ jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args } }));
  const input = calls.map((call) => `${JSON.stringify(call)}\n`).join("");
  const { status, stdout } = await hawser(["mcp"], { databaseUrl, input });
  expect(status).toBe(0);
  expect(stdout.trim().split("\n").length).toBe(calls.length);
}

/** Every page, and the first form of the list of dead letters if there is one. */
async function usePage(databaseUrl: string): Promise<void> {
  await using client = pageClient({ databaseUrl });
  const paths = [
    "/dead",
    "/backlog",
    "/peers",
    "/outbox",
    "/streams",
    "/schedules",
    "/message?id=a%2F1%2F2",
    "/actions",
  ];
  for (const path of ["/", ...paths, "/dead/1", "/dead/1/payload"]) await client.get(path);
  const { text } = await client.get("/dead");
  if (text.includes("Retry it")) await client.submit("/dead", "Retry it");
}

/** Sends that are delivered, stored and retried; transactional handlers, replies, subscriptions, clearing. */
async function usePeers(
  databaseUrl: string,
  given: Pick<PeerOptions, "databaseUrl" | "pool" | "sessionUrl">,
): Promise<void> {
  const where = { ...given, listen: "127.0.0.1:0" };
  const id = Math.random().toString(36).slice(2);
  const topic = `work-${id}`;
  const handled: string[] = [];
  await using sender = new Peer({ ...where, name: `sender-${id}`, topic: `source-${id}` });
  await sender.handle(sender.topic, () => undefined);
  await sender.start();
  {
    await using worker = new Peer({ ...where, name: `worker-${id}`, topic });
    const handle = async (message: TransactionalMessage): Promise<void> => {
      handled.push(message.text());
      await message.client.query("SELECT pg_catalog.pg_backend_pid()");
      // One that was sent, and one that was enqueued.
      if (handled.length === 2 || message.text() === "seven") throw new Error("no");
      await message.reply(Buffer.from("done"));
    };
    const options = { transactional: true, retry: { attempts: 1 } } as const;
    await worker.handle(topic, options, handle);
    await worker.start();
    await worker.handle(`news-${id}`, options, handle);
    for (const text of ["one", "two", "three"]) await sender.send(topic, Buffer.from(text));
    await eventually("all are handled", async () => handled.length >= 3);
    const transaction = new pg.Client({ connectionString: databaseUrl, options: "-c search_path=pg_catalog,pg_temp" });
    await transaction.connect();
    await transaction.query("BEGIN");
    await sender.enqueue(transaction, topic, "four", { key: "k" });
    await enqueue(transaction, topic, "five", { messageId: id, headers: { planted: "yes" } });
    await enqueue(transaction, topic, "six", { deliverAt: new Date(Date.now() + 200) });
    await transaction.query("SELECT hawser.enqueue_batch($1, ARRAY['seven', 'eight'])", [topic]);
    await enqueue(transaction, topic, "nine", { all: true });
    expect(await cancel(transaction, await enqueue(transaction, topic, "never", { key: "k" }))).toBe("cancelled");
    await transaction.query("COMMIT");
    await transaction.end();
    await eventually("what was enqueued is handled, too", async () => handled.length >= 9);
  }
  await sender.send(topic, Buffer.from("stored"));
  await sender.stop();
  await sender.clearStored();
  await sender.clearAddresses();
}

/** Another database, in which the extension's script installs everything. */
async function installByExtension(commandsRun: Set<string>): Promise<void> {
  const { stdout } = await hawser(["extension", "print", "sql"]);
  expect(stdout).toContain("search_path = pg_catalog, pg_temp");
  commandsRun.add("extension");
}

/** `hawser dev` on the planted database. */
async function useDev(commandsRun: Set<string>): Promise<void> {
  const directory = temporaryDirectory();
  const dev = startHawser(["dev", "--json", "--directory", directory], {
    databaseUrl: urls.superuser,
    env: { HAWSER_NATS_URL: testNatsUrl() },
  });
  await dev.firstLine;
  dev.child.kill("SIGINT");
  expect(await dev.ended).toMatchObject({ status: 0 });
  commandsRun.add("dev");
}
