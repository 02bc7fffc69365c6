/** What waits in the queue for a function is a dead letter again when its subscription ends. */
import { it } from "vitest";
import { bridgeWorld } from "./support/bridge-world.js";

it("messages of the queue are dead letters again whose function is not subscribed any more, also while they are being taken", async () => {
  await using world = await bridgeWorld({
    sql: `CREATE TABLE taken (payload bytea);
      CREATE FUNCTION f(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO taken VALUES (payload)'`,
  });
  const subject = `${world.prefix}.gone`;
  await world.subscribe(`${world.prefix}.there`, "f(bytea)");
  for (let times = 1; times <= 3; times += 1) {
    await world.subscribe(subject, "f(bytea)");
    await world.client.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id)
       SELECT 'subscription', 'f', h.subject, 'x', 'P0001', 'no', 1, h.id
         FROM hawser_bridge_data.nats_handlers AS h, generate_series(1, 149) WHERE h.subject = $1`,
      [subject],
    );
    await world.client.query("BEGIN");
    await world.client.query(
      "SELECT FROM hawser.retry_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters ORDER BY id))",
    );
    await world.client.query("SELECT nats_unsubscribe($1, 'f')", [subject]);
    await world.client.query("COMMIT");
    await world.counts(0, "SELECT count(*) FROM hawser_data.queue");
    // For some the function was called before.
    const all =
      "SELECT (SELECT count(*) FROM taken WHERE payload = 'x') + (SELECT count(*) FROM hawser_data.dead_letters)";
    await world.counts(149 * times, all);
  }
});
