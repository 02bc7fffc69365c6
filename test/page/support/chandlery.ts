/**
 * A shop whose function and handler fail, by a real server and real peers: what an operator sees on the page. Its names are
 * those of the pictures in the docs.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { silentLogger } from "../../../src/foundation/runtime/index.js";
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";
import { type PageOptions, servePage } from "../../../src/operating/page/index.js";
import { type BridgeWorld, bridgeWorld } from "../../bridge/support/bridge-world.js";
import { login } from "../../installation/support/logins.js";
import { eventually } from "../../support/eventually.js";

/** Number of orders that {@link Chandlery.failOrders} lets die. */
export const failedOrders = 1_000;
/** Number of mails that die. */
const failedMails = 7;

export interface Chandlery extends AsyncDisposable {
  readonly world: BridgeWorld;
  /**
   * Serves a page, by default with the login of an operator, who may retry and discard what the shop's role has subscribed.
   *
   * @returns its address without a path
   */
  openPage(options?: PageOptions): Promise<string>;
  /** Ends the page of an origin. */
  closePage(origin: string): Promise<void>;
  /** Takes all orders back, breaks the function, and publishes orders until all of them are dead letters. */
  failOrders(): Promise<void>;
  /** Replaces the function by one that can read the prices. */
  repair(): Promise<void>;
  /** Numbers of the orders that were taken, in their order. */
  taken(): Promise<number[]>;
}

/** Opens a shop. @param name of its schema and stream: all share a NATS server, so that each file needs one of its own */
export async function openChandlery(name: string): Promise<Chandlery> {
  const undo: (() => unknown)[] = [];
  const pages = new Map<string, () => Promise<void>>();
  const close = async () => {
    for (const one of undo.splice(0).reverse()) await one();
  };
  try {
    const world = await bridgeWorld();
    const { url } = world.database;
    undo.push(() => world[Symbol.asyncDispose]());
    const shop = await login(url, "IN ROLE hawser_nats");
    undo.push(() => shop[Symbol.asyncDispose]());
    const operator = await login(url, `IN ROLE hawser_peer, ${shop.role}`);
    undo.push(() => operator[Symbol.asyncDispose]());
    await world.client.query(`GRANT SELECT ON hawser.bridge_lead, hawser.bridge_work TO ${operator.role}`);

    const { streams } = await jetstreamManager(world.nats);
    const stream = name.toUpperCase();
    // An aborted run may have left it.
    await streams.delete(stream).catch(() => false);
    await streams.add({ name: stream, subjects: [`${name}.>`] });
    undo.push(() => streams.delete(stream));

    const order = "convert_from(payload, 'UTF8')::jsonb";
    const defineFunction = (price: string) =>
      world.client.query(`
        SET ROLE ${shop.role};
        CREATE OR REPLACE FUNCTION ${name}.take_order(payload bytea) RETURNS void LANGUAGE sql AS $$
          INSERT INTO ${name}.orders (number, price) SELECT (${order}->>'number')::integer, ${price}::numeric
        $$;
        RESET ROLE`);
    const broken = `(${order}->>'price')`;
    await world.client.query(`
      CREATE SCHEMA ${name} AUTHORIZATION ${shop.role};
      SET ROLE ${shop.role};
      CREATE TABLE ${name}.orders (nth bigserial, number integer, price numeric);
      RESET ROLE`);
    await defineFunction(broken);
    await world.client.query(`
      SET ROLE ${shop.role};
      SELECT nats_subscribe_stream('${stream}', '${name}.take_order', name => '${name}', filter => ARRAY['${name}.orders']);
      RESET ROLE`);

    const deadLetters = (origin: string) =>
      world.count(`SELECT count(*) FROM hawser_data.dead_letters WHERE origin = '${origin}'`);
    await failMails(url, undo);
    await world.client.query(`
      SELECT hawser.enqueue('mail', 'a reminder', deliver_at => now() + interval '1 day');
      SELECT hawser.schedule('nightly', '0 3 * * *', 'mail', '{}'::jsonb, 'Europe/Berlin');
      SELECT hawser.enqueue('letters', 'nobody listens yet')`);
    await eventually("the mails are dead", async () => (await deadLetters("queue")) === failedMails);

    return {
      world,
      async openPage(options) {
        const server = { databaseUrl: operator.url, listen: "127.0.0.1:0", logger: silentLogger };
        const page = await servePage({ ...server, ...options });
        const close = () => page[Symbol.asyncDispose]();
        undo.push(close);
        const { origin } = new URL(page.url);
        pages.set(origin, async () => {
          undo.splice(undo.indexOf(close), 1);
          await close();
        });
        return origin;
      },
      closePage: async (origin) => await pages.get(origin)!(),
      async failOrders() {
        await world.client.query(
          `DELETE FROM hawser_data.dead_letters WHERE origin = 'subscription'; DELETE FROM ${name}.orders`,
        );
        await defineFunction(broken);
        for (let number = 1; number <= failedOrders; number += 1) {
          const item = ["rope", "anchor", "shackle"][number % 3]!;
          world.nats.publish(`${name}.orders`, JSON.stringify({ number, item, price: `${number % 90},50` }));
        }
        await eventually("the orders are dead", async () => (await deadLetters("subscription")) === failedOrders);
      },
      repair: async () => void (await defineFunction(`replace(${order}->>'price', ',', '.')`)),
      taken: async () =>
        (await world.rows<{ number: number }>(`SELECT number FROM ${name}.orders ORDER BY nth`)).map(
          ({ number }) => number,
        ),
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Has a peer whose handler of mails fails, and one that sends it some. */
async function failMails(databaseUrl: string, undo: (() => unknown)[]): Promise<void> {
  const peer = (name: string, topic: string) => {
    const made = new Peer({ name, topic, listen: "127.0.0.1:0", databaseUrl, defaults: { retry: { attempts: 1 } } });
    undo.push(() => made.stop());
    return made;
  };
  const mailer = peer("mailer-1", "mail");
  await mailer.handle("mail", (message) => {
    throw new Error(`customer ${message.text()} has no mailbox`);
  });
  await mailer.start();
  const shop = peer("shop-1", "shop");
  await shop.start();
  for (let customer = 1; customer <= failedMails; customer += 1) {
    await shop.send("mail", String(customer), {
      headers: { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
    });
  }
}
