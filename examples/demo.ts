/**
 * `npm run demo`: what Hawser does, in real processes, with a real Postgres and a real nats-server, in a few seconds.
 *
 * The programs that it starts are in `demo/`; each is an example of the public API. HAWSER_DATABASE_URL names a Postgres
 * to use instead of the embedded one; the demo then makes a database of its own there and drops it in the end. So does
 * HAWSER_NATS_URL for the nats-server; the demo leaves a bucket `stock` there.
 */
import { constants } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { startDevStack } from "../src/development/dev/index.js";
import { install } from "../src/operating/installation/index.js";
import { countStored, createDatabase, type ExampleDatabase } from "./processes/database.js";
import { type Program, Programs } from "./processes/programs.js";
import { createStream } from "./processes/stream.js";

const TIME_LIMIT_MS = 100_000;

/** One that has been handled leaves the table with the listener's next commit, some ms later. */
const COMMIT_LIMIT_MS = 5_000;

/** What a killed process had to do is done by the next one, some seconds later. */
const TAKEOVER_LIMIT_MS = 20_000;

/** A table, a function that fills it from NATS, and one that answers requests. */
const natsToSql = [
  "CREATE TABLE readings (id bigserial, subject text, celsius numeric)",
  `CREATE FUNCTION store_reading(payload bytea, subject text) RETURNS void LANGUAGE sql
      AS $$INSERT INTO readings (subject, celsius) VALUES (subject, convert_from(payload, 'UTF8')::numeric)$$`,
  `CREATE FUNCTION limit_of(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
      AS $$SELECT CASE payload WHEN 'engine' THEN '90.0' ELSE 'no limit' END$$`,
  "SELECT nats_subscribe('sensors.*', 'store_reading')",
  "SELECT litmus_pgnats_register_responder('limits.temperature', 'limit_of')",
];

/** Two tables, and a function that fills one of them from a stream: without a key, so that it would have a row twice. */
const auditTables = [
  "CREATE TABLE orders (id integer)",
  "CREATE TABLE audit (id integer)",
  `CREATE FUNCTION audit_order(payload bytea) RETURNS void LANGUAGE sql
      AS $$INSERT INTO audit VALUES (convert_from(payload, 'UTF8')::integer)$$`,
];

async function demo(signal: AbortSignal): Promise<void> {
  console.log(
    styleText("bold", "Hawser: two processes talk directly; Postgres is their phone book, offline queue and ledger."),
  );

  step("1. A Postgres and a nats-server start");
  await using stack = await startDevStack({ signal });
  await using database = await createDatabase(stack.databaseUrl, "demo");
  for (const { name, version = "", origin, url } of stack.servers) {
    say(`${name} ${version} from ${origin} answers at ${new URL(url).host}`);
  }
  await using programs = new Programs({
    folder: new URL("demo/", import.meta.url),
    databaseUrl: database.url,
    natsUrl: stack.natsUrl!,
    signal,
    onLine: (program, pid, line) => console.log(`   ${styleText("cyan", `${program.padEnd(7)} ${pid}`)} │ ${line}`),
  });
  const start = (name: string): Program => {
    const program = programs.start(name);
    say(`started examples/demo/${name}.ts, pid ${program.pid}`);
    return program;
  };

  step("2. Two peers exchange messages, over TCP from process to process");
  const billing = start("billing");
  await billing.printed("listens on");
  await endsWell("shop", start("shop"));

  step("3. The listener stops, and a message is still sent to it");
  await endsWell("billing", billing, billing.stop());
  await endsWell("payment", start("payment"));
  await expectStored(database, 1);
  say("The sender is gone, the listener is not there: the message waits in the table.");

  step("4. The listener starts again");
  const again = start("billing");
  await Promise.all([again.printed("listens on"), again.printed("payment of")]);
  await expectStored(database, 0);
  await endsWell("billing", again, again.stop());

  step("5. SQL publishes to NATS, without a native extension in Postgres");
  await install({ databaseUrl: database.url });
  const serve = start("serve");
  await serve.printed("answers");
  const { hostname, port } = new URL(stack.natsUrl!);
  await run(database, `SELECT hawser.set_nats_server('{"host": "${hostname}", "port": "${port}"}')`);
  const subscriber = start("subscriber");
  await subscriber.printed("subscribes");
  await run(database, "SELECT nats_put_text('stock', 'rope', '200 m')");
  await run(database, `SELECT nats_publish_text('orders.new', '20 m of rope', NULL, '{"trace": "17"}')`);
  await endsWell("subscriber", subscriber);
  await run(database, "SELECT nats_get_text('stock', 'rope')");

  step("6. Messages and requests from NATS run SQL functions");
  for (const statement of natsToSql) await run(database, statement);
  await endsWell("sensor", start("sensor"));
  await expectCount(database, "SELECT count(*) FROM readings", 3);
  await run(database, "SELECT string_agg(subject || ' ' || celsius, ', ' ORDER BY id) FROM readings");

  step("7. A row and its message commit together, or not at all");
  await using stream = await createStream(stack.natsUrl!);
  for (const statement of auditTables) await run(database, statement);
  await run(database, `SELECT nats_subscribe_stream('${stream.name}', 'audit_order', 'audit')`);
  const enqueue = (id: string) => `hawser.enqueue('${stream.subject}', ${id}, stream => true)`;
  await run(database, `BEGIN; INSERT INTO orders VALUES (1); SELECT ${enqueue("'1'")}; COMMIT`);
  await run(database, `BEGIN; INSERT INTO orders VALUES (2); SELECT ${enqueue("'2'")}; ROLLBACK`);
  await run(database, `BEGIN; INSERT INTO orders VALUES (3); SELECT ${enqueue("'3'")}; COMMIT`);
  await expectCount(database, "SELECT count(*) FROM audit", 2);
  await run(database, "SELECT string_agg(id::text, ', ' ORDER BY id) FROM audit");

  step("8. hawser serve is killed, and each message lands in the table once");
  await run(
    database,
    `WITH placed AS (INSERT INTO orders SELECT generate_series(4, 1001) RETURNING id) SELECT count(${enqueue("id::text")}) FROM placed`,
  );
  say(`serve, pid ${serve.pid}, is killed: ${await serve.kill()}`);
  const next = start("serve");
  await next.printed("answers");
  await expectCount(database, "SELECT count(*) FROM audit", 1_000, TAKEOVER_LIMIT_MS);
  await expectCount(database, "SELECT count(*) FROM (SELECT id FROM orders EXCEPT SELECT id FROM audit) AS missing", 0);
  await endsWell("serve", next, next.stop());

  step("Everything is stopped again");
}

/** Waits for the program's end, prints its exit status, and insists on 0. */
async function endsWell(name: string, program: Program, ended = program.ended): Promise<void> {
  const end = await ended;
  say(`${name}, pid ${program.pid}, has ended; exit status ${end}`);
  if (end !== 0) throw new Error(`examples/demo/${name}.ts ended with ${end} instead of 0`);
}

/** Asks the database until it has that many stored messages, prints the answer, and insists on it. */
function expectStored(database: ExampleDatabase, expected: number): Promise<void> {
  return expectCount(database, countStored, expected);
}

async function expectCount(
  database: ExampleDatabase,
  sql: string,
  expected: number,
  limitMs = COMMIT_LIMIT_MS,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  let found = Number(await database.value(sql));
  while (found !== expected && Date.now() < deadline) {
    await delay(20);
    found = Number(await database.value(sql));
  }
  say(`${sql};  →  count(*) = ${found}`);
  if (found !== expected) throw new Error(`expected count(*) = ${expected}, and it is ${found}`);
}

/** Runs a statement, and prints it with its value. */
async function run(database: ExampleDatabase, sql: string): Promise<void> {
  say(`${sql};  →  ${(await database.value(sql)) || "(void)"}`);
}

function step(title: string): void {
  console.log(`\n${styleText("bold", title)}`);
}

function say(text: string): void {
  console.log(`   ${text}`);
}

const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => interrupted.abort(name));
const tooLong = AbortSignal.timeout(TIME_LIMIT_MS);
const began = performance.now();
try {
  await demo(AbortSignal.any([interrupted.signal, tooLong]));
  console.log(
    styleText(
      "green",
      `   The demo has shown what it promised, in ${((performance.now() - began) / 1000).toFixed(1)} s.`,
    ),
  );
} catch (error) {
  if (interrupted.signal.aborted) {
    const name = interrupted.signal.reason as NodeJS.Signals;
    console.error(`\nThe demo was ended by ${name}; everything is stopped again.`);
    process.exitCode = 128 + constants.signals[name];
  } else {
    const text = tooLong.aborted
      ? `The demo has stopped itself after ${TIME_LIMIT_MS / 1000} s, before its last step. This machine is slow or busy: try again, or run one of the other examples.`
      : `The demo has failed: ${(error as Error).message}`;
    console.error(styleText("red", `\n${text}`, { stream: process.stderr }));
    if (!tooLong.aborted) console.error(error);
    process.exitCode = 1;
  }
}
