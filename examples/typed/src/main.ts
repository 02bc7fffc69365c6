/** Typed messages between SQL, TypeScript, peers and NATS. Each part prints what it has received. */
import { readFileSync } from "node:fs";
import { createClient, type Transport } from "@connectrpc/connect";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Peer } from "hawser";
import { createNatsTransport, createPeerTransport, serveNats, servePeer } from "hawser/connect";
import { publish, subscribe, typed } from "hawser/nats";
import pg from "pg";
import {
  OrderPackedSchema,
  OrderPlacedSchema,
  PriceChangedSchema,
  WarehouseService,
} from "../gen/acme/shop/v1/shop_pb.js";
import { routes } from "./routes.js";
import { startStack } from "./stack.js";

await using stack = await startStack();
const { databaseUrl } = stack;
const database = new pg.Client({ connectionString: databaseUrl });
await database.connect();
const nats = await connect({ servers: stack.natsUrl });
try {
  const jetstream = await jetstreamManager(nats);
  await jetstream.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  // What `buf generate` has made; and a table and a function of our own.
  await database.query(readFileSync("migrations/acme/shop/v1/messages.sql", "utf8"));
  await database.query(readFileSync("sql/orders.sql", "utf8"));

  await intoSql();
  await overNats();
  await betweenPeers();
  await rpcOverPeers();
  await rpcOverNats();
} finally {
  await nats.drain();
  await database.end();
}

/** SQL and TypeScript publish into a stream, and a function that is subscribed to it gets typed columns. */
async function intoSql(): Promise<void> {
  await database.query(
    `SELECT shop.publish_order_placed(tenant => 'north', order_id => '17', cents => 4950, placed_at => now(),
       items => ARRAY[ROW('rope', 2), ROW('shackle', 1)]::shop.order_item[])`,
  );
  const items = [{ sku: "buoy", count: 5 }];
  await publish(nats, OrderPlacedSchema, { tenant: "south", orderId: "18", cents: 120n, items });
  for (;;) {
    const { rows } = await database.query<{ id: string; tenant: string; cents: string; things: string }>(
      "SELECT id, tenant, cents, things FROM orders ORDER BY id",
    );
    if (rows.length === 2) {
      for (const { id, tenant, cents, things } of rows) {
        console.log(`SQL function: order ${id} of ${tenant}, ${cents} cents, ${things} things`);
      }
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** SQL and TypeScript publish, and TypeScript receives, over NATS. */
async function overNats(): Promise<void> {
  const prices = counter(2);
  await using _ = await subscribe(
    nats,
    typed(PriceChangedSchema, ({ sku, cents }) => {
      console.log(`NATS: ${sku} costs ${cents} cents`);
      prices.count();
    }),
    { onFailure: (error) => console.error(error) },
  );
  await publish(nats, PriceChangedSchema, { sku: "buoy", cents: 24n });
  await nats.flush();
  await database.query("SELECT shop.publish_price_changed(sku => 'rope', cents => 1299)");
  await prices.done;
}

/** A peer and SQL publish, and another peer receives. */
async function betweenPeers(): Promise<void> {
  const packed = counter(2);
  await using shipping = new Peer({ name: "shipping-1", topic: "shipping", listen: "127.0.0.1:0", databaseUrl });
  await shipping.run();
  await shipping.handle(OrderPackedSchema, ({ orderId, weightKg }) => {
    console.log(`Peer: order ${orderId} weighs ${weightKg} kg`);
    packed.count();
  });
  await using shop = new Peer({ name: "shop-1", topic: "shop", listen: "127.0.0.1:0", databaseUrl });
  await shop.run();
  await shop.publish(OrderPackedSchema, { orderId: "17", weightKg: 12.5 });
  await database.query("SELECT shop.publish_order_packed(order_id => '18', weight_kg => 0.75)");
  await packed.done;
}

/** A service that a peer serves, and another peer calls. */
async function rpcOverPeers(): Promise<void> {
  await using warehouse = new Peer({ name: "warehouse-1", topic: "warehouse", listen: "127.0.0.1:0", databaseUrl });
  await servePeer(warehouse, routes);
  await warehouse.run();
  await using shop = new Peer({ name: "shop-2", topic: "shop", listen: "127.0.0.1:0", databaseUrl });
  await shop.run();
  await ask("peers", createPeerTransport(shop));
}

/** The same service over NATS. */
async function rpcOverNats(): Promise<void> {
  const server = await serveNats(nats, routes);
  await ask("NATS", createNatsTransport(nats));
  await server.stop();
}

async function ask(way: string, transport: Transport): Promise<void> {
  const { count } = await createClient(WarehouseService, transport).checkStock({ sku: "rope" });
  console.log(`RPC over ${way}: ${count} ropes in stock`);
}

/** Counts what arrives; `done` resolves with the last one. */
function counter(expected: number): { readonly done: Promise<void>; count(): void } {
  let left = expected;
  let resolve: () => void = () => undefined;
  const done = new Promise<void>((resolved) => {
    resolve = resolved;
  });
  return {
    done,
    count() {
      left -= 1;
      if (left === 0) resolve();
    },
  };
}
