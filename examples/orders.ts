/**
 * `npm run orders -- [--seconds N]`: an order service in real processes, which are killed (SIGKILL) again and again.
 *
 *     shop ──┬─ a row in `orders`
 *            ├─ enqueue ──▶ the queue ───▶ warehouse ──▶ a row in `bookings`
 *            └─ enqueue ──▶ the outbox ──▶ a stream of NATS ──▶ audit_order() ──▶ a row in `audit`
 *
 * The shop writes all three in one transaction. In the end each order has one booking and one row of the audit, whatever was
 * killed when. HAWSER_DATABASE_URL and HAWSER_NATS_URL name servers to use instead of ones that it starts; it makes a
 * database and a stream of its own there, and removes both.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs, styleText } from "node:util";
import { startDevStack } from "../src/development/dev/index.js";
import { install } from "../src/operating/installation/index.js";
import { createDatabase, type ExampleDatabase } from "./processes/database.js";
import { Programs } from "./processes/programs.js";
import { createStream } from "./processes/stream.js";

/** Each process, and what it prints when it works. */
const processes = { shop: "takes orders", warehouse: "books orders", serve: "relays and audits" } as const;

/** How long a process works before it is killed. */
const lifetimeMs = { least: 200, most: 3_000 };

/** How long the last messages may be under way when nothing is killed any more. */
const arrivalLimitMs = 60_000;

/** Nothing here keeps an effect from happening twice: no key, no check. */
const tables = [
  "CREATE TABLE orders (id bigserial PRIMARY KEY, what text)",
  "CREATE TABLE bookings (order_id bigint, what text)",
  "CREATE TABLE audit (order_id bigint)",
  `CREATE FUNCTION audit_order(payload bytea) RETURNS void LANGUAGE sql
     AS $$ INSERT INTO audit VALUES ((convert_from(payload, 'UTF8')::json ->> 'id')::bigint) $$`,
];

async function orders(seconds: number, signal: AbortSignal): Promise<void> {
  await using stack = await startDevStack({ signal });
  await using database = await createDatabase(stack.databaseUrl, "orders");
  await install({ databaseUrl: database.url });
  const natsUrl = stack.natsUrl!;
  await using stream = await createStream(natsUrl);
  for (const statement of tables) await database.value(statement);
  const { hostname: host, port } = new URL(natsUrl);
  await database.value(`SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
  await database.value(`SELECT nats_subscribe_stream('${stream.name}', 'audit_order', 'audit')`);

  await using programs = new Programs({
    folder: new URL("orders/", import.meta.url),
    databaseUrl: database.url,
    natsUrl,
    env: { ORDERS_SUBJECT: stream.subject },
    signal,
    onLine: (program, pid, line) => console.log(`${styleText("cyan", `${program.padEnd(9)} ${pid}`)} │ ${line}`),
  });
  const until = performance.now() + seconds * 1_000;
  const names = Object.keys(processes) as (keyof typeof processes)[];
  const kills = await Promise.all(names.map((name) => killAgainAndAgain(programs, name, until)));
  await kills[0]!.last.stop();
  console.log(styleText("bold", `Killed: ${names.map((name, n) => `${name} ${kills[n]!.count} times`).join(", ")}`));
  await expectSameRows(database);
}

/** Starts the process, kills it and starts it again, once at least, until the time has come. The last one runs on. */
async function killAgainAndAgain(programs: Programs, name: keyof typeof processes, until: number) {
  for (let count = 0; ; count++) {
    const program = programs.start(name);
    await program.printed(processes[name]);
    const lifetime = lifetimeMs.least + Math.random() * (lifetimeMs.most - lifetimeMs.least);
    const left = until - performance.now();
    if (count > 0 && lifetime > left) {
      await delay(Math.max(0, left));
      return { count, last: program };
    }
    await delay(lifetime);
    await program.kill();
  }
}

/** Prints the numbers of rows once all has arrived. @throws if something is missing, or there twice */
async function expectSameRows(database: ExampleDatabase): Promise<void> {
  const count = async (sql: string) => Number(await database.value(`SELECT count(*) FROM ${sql}`));
  const lacking = (table: string) =>
    count(`orders AS o WHERE NOT EXISTS (SELECT FROM ${table} AS t WHERE t.order_id = o.id)`);
  const limit = performance.now() + arrivalLimitMs;
  for (const table of ["bookings", "audit"]) {
    while ((await lacking(table)) > 0 && performance.now() < limit) await delay(100);
  }
  const [all, bookings, audit] = [await count("orders"), await count("bookings"), await count("audit")];
  console.log(styleText("bold", `${all} orders, ${bookings} bookings, ${audit} rows of the audit`));
  const [unbooked, unaudited] = [await lacking("bookings"), await lacking("audit")];
  if (unbooked > 0 || unaudited > 0 || bookings !== all || audit !== all) {
    throw new Error(`the numbers differ: ${unbooked} orders are not booked, ${unaudited} not in the audit`);
  }
}

/** @throws with what is wrong */
function secondsAsked(): number {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "15" } } });
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}: must be a number above 0.`);
  return seconds;
}

const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => interrupted.abort());
try {
  await orders(secondsAsked(), interrupted.signal);
  console.log(styleText("green", "Each order has one booking and one row of the audit."));
} catch (error) {
  console.error(styleText("red", `The example has failed: ${(error as Error).message}`, { stream: process.stderr }));
  process.exitCode = 1;
}
