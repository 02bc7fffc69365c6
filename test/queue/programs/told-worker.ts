/**
 * A worker, or a peer, in a process of its own, whose handlers do what it is told: by its argument, and then by each line on standard
 * input. What they have handled are rows of the table `handled`. The database is that of HAWSER_DATABASE_URL.
 */
import { createInterface } from "node:readline";
import pg from "pg";
import { type Message, Peer, Worker } from "../../../src/jobs-and-peers/peer/index.js";

/** What handlers do: end at once, wait until they are told something else, fail, or never end at the first attempt. */
export type Deed = "handle" | "hold" | "fail" | "hang";

/** Argument of the program, as JSON. */
export interface ToldWorker {
  readonly name: string;
  readonly topic: string;
  readonly does: Deed;
  readonly isPeer?: boolean;
  readonly concurrency?: number;
  readonly group?: string;
  readonly durable?: boolean;
  readonly takeoverMs?: number;
  readonly timeoutMs?: number;
  readonly retry?: { readonly attempts: number; readonly delayMs?: number; readonly maxDelayMs?: number };
}

const {
  name,
  topic,
  does,
  isPeer = false,
  concurrency = 4,
  durable,
  ...handling
} = JSON.parse(process.argv[2]!) as ToldWorker;
const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"], max: 2 });
let told: Deed = does;
let release = (): void => undefined;
const released = new Promise<void>((resolve) => {
  release = resolve;
});
createInterface({ input: process.stdin }).on("line", (line) => {
  told = line as Deed;
  release();
});
const handler = async (message: Message): Promise<void> => {
  if (told === "hold") await released;
  if (told === "hang" && message.attempt === 1) await new Promise(() => undefined);
  if (told === "fail") throw new Error("no paper");
  await pool.query("INSERT INTO handled (what, worker) VALUES ($1, $2)", [message.text(), name]);
};
const options = { name, concurrency, stopOnSignals: true };
const runner = isPeer ? new Peer(options) : new Worker(options);
if (runner instanceof Peer)
  await runner.handle(topic, { ...handling, ...(durable !== undefined && { durable }) }, handler);
else await runner.handle(topic, handling, handler);
await runner.start();
console.log("running");
await runner.closed;
process.exit();
