import { it } from "vitest";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { login } from "../store/nats/support/logins.js";
import { hawser } from "./support/hawser.js";
it("x", async () => {
  await using database = await testDatabase();
  await onServer(database.url, `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('peer', 's:t:l', E'ord\\x1b[2Jers', 'the-payload', 'handler_failed', 'm', 1)`, "UPDATE hawser.owners SET epoch = 9007199254740993, owner = 'x' WHERE what = 'serve'",
    "INSERT INTO hawser.peers (name, epoch, clean) VALUES ('crashed', 1, false), ('elsewhere', 1, true)");
  const a = await hawser(["top"], { databaseUrl: database.url });
  console.log(a);console.log(a.stdout);
  console.log(await hawser(["top", "--json"], { databaseUrl: database.url }));
    await using viewer = await login(database.url);
    await onServer(
      database.url,
      `GRANT USAGE ON SCHEMA hawser TO ${viewer.role}`,
      `GRANT SELECT ON hawser.outbox_status, hawser.stream_status, hawser.schedule_status, hawser.bridge_lead TO ${viewer.role}`,
    );
  const b = await hawser(["top"], { databaseUrl: viewer.url });
  console.log(b.stdout, b.stderr, b.status);
});
