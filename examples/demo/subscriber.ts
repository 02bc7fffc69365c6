/**
 * An ordinary NATS client, which knows nothing of Hawser: it subscribes to orders, and after one it looks into the stock.
 */
import { Kvm } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";

const connection = await connect({ servers: process.env["NATS_URL"] ?? "" });

async function stop(): Promise<void> {
  await connection.close();
  process.exit();
}

process.once("SIGINT", stop);
process.once("SIGTERM", stop);

const orders = connection.subscribe("orders.>", { max: 1 });
await connection.flush();
console.log("subscribes to orders.>");
for await (const message of orders) {
  console.log(`got "${message.string()}" on ${message.subject}, trace ${message.headers?.get("trace")}`);
}

const stock = await new Kvm(connection).open("stock");
console.log(`reads bucket stock, key rope: ${(await stock.get("rope"))?.string()}`);
await connection.close();
