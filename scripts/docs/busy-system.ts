/**
 * System whose page is recorded: a shop with workers that handle, fail, wait and are away, over real servers. The samples of the
 * day before are made up.
 */
import { setTimeout as delay } from "node:timers/promises";
import { sampleConstants } from "../../generated/ts/settings/queue.js";
import { type TestStack, testStack } from "../../src/development/testing/index.js";
import { Worker } from "../../src/jobs-and-peers/peer/index.js";
import { reportedLimitsMs } from "../../src/jobs-and-peers/store/index.js";

/** Topic of the shop. */
interface Kind {
  readonly topic: string;
  readonly worker: string;
  /** Messages in a second. */
  readonly rate: number;
  /** Time that a handler takes, in ms. */
  readonly handlerMs: number;
  /** Share of the attempts that fail. */
  readonly failing?: number;
  readonly error?: string;
}

const kinds: readonly Kind[] = [
  { topic: "orders.place", worker: "shop-1", rate: 24, handlerMs: 40 },
  { topic: "orders.confirm", worker: "shop-2", rate: 18, handlerMs: 20 },
  { topic: "stock.reserve", worker: "shop-2", rate: 16, handlerMs: 25 },
  {
    topic: "mail.send",
    worker: "mailer",
    rate: 14,
    handlerMs: 120,
    failing: 0.1,
    error: "SMTP 451 4.7.1 the mailbox is full",
  },
  {
    topic: "webhooks.deliver",
    worker: "edge",
    rate: 9,
    handlerMs: 150,
    failing: 0.3,
    error: "the endpoint answered 503",
  },
  {
    topic: "billing.charge",
    worker: "billing",
    rate: 6,
    handlerMs: 200,
    failing: 0.05,
    error: "connection to billing-db was lost",
  },
  { topic: "images.resize", worker: "renderer", rate: 8, handlerMs: 700 },
  { topic: "reports.nightly", worker: "renderer", rate: 1, handlerMs: 2_000 },
];

export interface BusySystem extends AsyncDisposable {
  readonly databaseUrl: string;
}

/** Starts the servers and the shop, which works until it is disposed of. */
export async function openBusySystem(): Promise<BusySystem> {
  const stack = await testStack({ serve: true });
  const workers: Worker[] = [];
  let isOpen = true;
  let traffic: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    isOpen = false;
    await traffic?.catch(() => undefined);
    await Promise.all(workers.map((worker) => worker.stop()));
    await stack.drop();
  };
  try {
    await prepare(stack);
    for (const name of new Set(kinds.map(({ worker }) => worker)))
      workers.push(await startWorker(name, stack.databaseUrl));
    await plantSamples(stack);
    traffic = sendUntil(stack, () => !isOpen);
    return { databaseUrl: stack.databaseUrl, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Makes topics, schedules and subscriptions, and messages that nobody takes. */
async function prepare(stack: TestStack): Promise<void> {
  await stack.query("SELECT hawser.keep_results('orders.place', 86400000)");
  await stack.query("SELECT hawser.pause_topic('reports.nightly')");
  await stack.query("SELECT hawser.limit_topic('webhooks.deliver', rate => '3/s')");
  await stack.query("SELECT hawser.schedule('nightly-report', '0 3 * * *', 'reports.nightly', '{}'::jsonb)");
  await stack.query("SELECT hawser.schedule('clean-carts', '*/20 * * * *', 'carts.clean', '{}'::jsonb)");
  await stack.query("SELECT nats_create_stream('ORDERS', ARRAY['shop.>'])");
  await stack.query("CREATE TABLE shipments (payload text)");
  await stack.query(
    "CREATE FUNCTION note_shipment(payload bytea) RETURNS void LANGUAGE sql AS $$ INSERT INTO shipments VALUES (convert_from(payload, 'UTF8')) $$",
  );
  await stack.query("SELECT nats_subscribe_stream('ORDERS', 'note_shipment', name => 'shipments')");
  await stack.query("SELECT nats_subscribe('harbour.arrivals.*', 'note_shipment')");
  // A name that is one letter off, and what is due later.
  await stack.query(`SELECT hawser.enqueue_batch('ordres.place', array_fill('{"order": 17}'::text, ARRAY[40]))`);
  await stack.query(
    `SELECT hawser.enqueue('orders.remind', '{"order": 4711}'::jsonb, deliver_at => now() + n * interval '20 min') FROM generate_series(1, 12) AS n`,
  );
}

async function startWorker(name: string, databaseUrl: string): Promise<Worker> {
  const worker = new Worker({ databaseUrl, name, concurrency: 6 });
  for (const { topic, handlerMs, failing = 0, error } of kinds.filter((each) => each.worker === name))
    await worker.handle(topic, { retry: { attempts: 2, delayMs: 500 } }, async () => {
      await delay(handlerMs * (0.5 + Math.random()));
      if (Math.random() < failing) throw new Error(error);
    });
  return await worker.start();
}

/** Enqueues the messages of a second in each second. */
async function sendUntil(stack: TestStack, isEnded: () => boolean): Promise<void> {
  const topics = kinds.flatMap(({ topic, rate }) => new Array<string>(rate).fill(topic));
  for (let order = 1_000; !isEnded(); order += topics.length) {
    await stack.query(
      `SELECT hawser.enqueue(t.topic, json_build_object('order', $2::integer + t.nth, 'customer', 'c-' || t.nth), key => CASE WHEN t.topic LIKE 'orders%' THEN 'c-' || t.nth END)
         FROM unnest($1::text[]) WITH ORDINALITY AS t (topic, nth)`,
      [topics, order],
    );
    await stack.query("SELECT hawser.enqueue('shop.shipped', $1::text, stream => true)", [JSON.stringify({ order })]);
    await delay(1_000);
  }
}

/** Writes the samples of an hour, and of a day, as if the shop had worked. Half an hour ago, webhooks were slow for ten minutes. */
async function plantSamples(stack: TestStack): Promise<void> {
  const { stepMs, slots, folded, foldedSlots } = sampleConstants;
  for (const [ms, count] of [
    [stepMs, slots],
    [stepMs * folded, foldedSlots],
  ] as const) {
    const present = Math.floor(Date.now() / ms);
    for (let step = present - count + 1; step < present; step++) {
      const agoMs = (present - step) * ms;
      const isSlow = agoMs > 1_500_000 && agoMs < 2_100_000;
      const named = Object.fromEntries(kinds.map((kind) => [kind.topic, numbersOf(kind, ms, step, isSlow)]));
      const all = Object.values(named).reduce((sum, each) =>
        sum.map((value, nth) => (nth === 5 ? Math.max(value, each[nth]!) : value + each[nth]!)),
      );
      await stack.query(
        "INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series) VALUES ($1, $2, to_timestamp($3), $4, $5) ON CONFLICT DO NOTHING",
        [ms / 1_000, step % count, (step * ms + 200) / 1_000, ms, JSON.stringify({ topic: { all, named } })],
      );
    }
  }
}

/** Numbers of a series, as `hawser_data.samples` has them. */
function numbersOf({ topic, rate, handlerMs, failing = 0 }: Kind, ms: number, step: number, isSlow: boolean): number[] {
  const wave = 1 + 0.25 * Math.sin(step / 9) + 0.1 * Math.sin(step * 2.3 + rate);
  const enqueued = Math.round(((rate * ms) / 1_000) * wave);
  const isHeld = isSlow && topic === "webhooks.deliver";
  const handled = isHeld ? Math.round(enqueued * 0.6) : enqueued;
  const waiting = Math.round(rate * wave * (isHeld ? 90 : 0.4));
  const classOf = reportedLimitsMs.findIndex((limit) => handlerMs <= limit);
  const durations = reportedLimitsMs.map((_, nth) =>
    nth === classOf ? Math.round(handled * 0.9) : nth === classOf + 1 ? Math.round(handled * 0.1) : 0,
  );
  const oldestMs = isHeld ? 120_000 : Math.round(handlerMs * (2 + wave));
  const dead = failing > 0.05 && step % 12 === 0 ? 1 : 0;
  return [
    enqueued,
    handled,
    Math.round(enqueued * failing),
    dead,
    waiting,
    oldestMs,
    0,
    handled * handlerMs,
    ...durations,
  ];
}
