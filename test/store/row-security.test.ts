/**
 * Row security on Hawser's own tables, as an event trigger of a platform switches it on: rows that it hides count as
 * hidden, never as missing. `row-security.slow.test.ts` has more tables.
 */
import { expect, it } from "vitest";
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { tables as queueTables } from "../../generated/ts/rows/queue.js";
import { peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { asLogin, type Case, expectNothingLost, withLogin } from "./support/row-security.js";

withLogin();

// Side by side: each waits for seconds until somebody tries again.
it.concurrent.each<Case>([
  { mode: "FORCE", table: "queue", when: "runs" },
  { mode: "FORCE", table: "peers", when: "starts" },
])("$mode on $table while a listener $when loses and dead-letters no message, and names the remedy", expectNothingLost);

it.concurrent("a trigger of a user over a table with row security stops the commits with an error that names its function, until that sets row_security", async () => {
  await using world = await peerWorld({ nats: false, keepsConnections: true });
  await world.query(`
    GRANT USAGE ON SCHEMA public TO PUBLIC; CREATE TABLE audit (text text); ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everyone ON audit USING (true) WITH CHECK (true); GRANT ALL ON audit TO PUBLIC;
    CREATE FUNCTION public.audit_letter() RETURNS trigger LANGUAGE plpgsql
      AS 'BEGIN INSERT INTO public.audit VALUES (NEW.topic); RETURN NULL; END';
    CREATE TRIGGER audit_letter AFTER INSERT ON hawser_data.dead_letters FOR EACH ROW EXECUTE FUNCTION public.audit_letter()`);
  const listener = await world.started(
    "b-1",
    { databaseUrl: asLogin(world), defaults: { retry: { attempts: 1 } } },
    ({ payload }) => {
      if (Buffer.from(payload).toString() === "bad") throw new Error("bad");
    },
  );
  const sender = await world.started("a-1", { tuning: { ackTimeoutMs: 1_000 } });
  const sends = [sender.send("b", "bad"), sender.send("b", "good")];
  const remedy =
    "a trigger of yours runs in Hawser's transaction: ALTER FUNCTION public.audit_letter() SET row_security = on";
  await eventually("an error names the function", () =>
    listener.statuses.all.some((status) => "message" in status && String(status.message).includes(remedy)),
  );
  await world.query("ALTER FUNCTION public.audit_letter() SET row_security = on");
  await Promise.all(sends);
  await eventually("the letter is there", async () => (await world.query("SELECT FROM audit")).length === 1);
  expect(await world.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(1);
  // What was not acknowledged within the second was stored, and is deleted when it is handled.
  await eventually("nothing waits", async () => (await world.storedMessages()) === 0);
});

it.concurrent("no function of Hawser that names a table depends on the row_security of its caller's session", async () => {
  await using world = await peerWorld({ keepsConnections: true });
  const names = [peerTables, outboxTables, queueTables, natsTables].flatMap((each) => Object.values(each));
  const functions = await world.query<{ name: string; source: string; isFixed: boolean }>(
    `SELECT oid::regprocedure::text AS name, prosrc AS source, 'row_security=off' = ANY (coalesce(proconfig, '{}')) AS "isFixed"
       FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace OR pronamespace = 'public'::regnamespace AND proname ~ 'nats'`,
  );
  const reading = functions.filter(({ source }) =>
    names.some((name) => new RegExp(`${name.replace(".", "\\.")}\\b`).test(source)),
  );
  expect(reading.length).toBeGreaterThan(50);
  // Called within a function that has fixed it.
  const others = /^hawser\.gateway_(call|lost)\(/;
  expect(reading.filter(({ name, isFixed }) => !isFixed && !others.test(name)).map(({ name }) => name)).toEqual([]);
});
