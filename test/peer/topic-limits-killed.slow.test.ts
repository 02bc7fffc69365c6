/** Limits of a topic hold in all processes together, whichever of them are killed. Postgres counts, by triggers of the test. */
import { expect, it } from "vitest";
import { enqueueBatch, limitTopic } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { startCrew } from "./support/crew.js";
import { peerWorld } from "./support/world.js";

const limits = { rate: "60/s", burst: 10, running: 6, runningPerKey: 2, keyHeader: "tenant" };
const tenants = ["a", "b", "c", "d", "e"];
const perTenant = 120;

/** Each start with its time, and how many messages processes had with the commit that gave them the message. */
const counting = `
  CREATE TABLE given (rank bigint, at timestamptz);
  CREATE FUNCTION note_start() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
  BEGIN
    INSERT INTO public.given VALUES (NEW.rank, NEW.started_at);
    RETURN NULL;
  END $$;
  CREATE TRIGGER note_start AFTER INSERT OR UPDATE ON hawser_data.topic_starts FOR EACH ROW EXECUTE FUNCTION note_start();
  CREATE TABLE had (running bigint, of_tenant bigint);
  CREATE FUNCTION count_had() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
  BEGIN
    INSERT INTO public.had
    SELECT sum(t.n), max(t.n) FROM (
      SELECT q.headers -> 0 ->> 1, count(*) AS n
        FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NULL
       WHERE q.topic = 'jobs' GROUP BY 1
    ) AS t;
    RETURN NULL;
  END $$;
  CREATE CONSTRAINT TRIGGER count_had AFTER UPDATE ON hawser_data.queue DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.worker IS NOT NULL) EXECUTE FUNCTION count_had();`;

it("starts, messages that run, and those of each tenant stay within their limits while processes are killed", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query(counting);
  await limitTopic(world, "jobs", limits);
  const crew = await startCrew(world, ["b-1", "b-2", "b-3"]);
  for (const tenant of tenants) {
    const texts = Array.from({ length: perTenant }, (_, number) => `${tenant}${number}`);
    await enqueueBatch(world, "jobs", texts, { headers: { tenant } });
  }
  const ended = () => world.query<{ what: string }>("SELECT what FROM ended");
  for (let round = 1; round <= 6; round += 1) {
    await eventually("some are done", async () => (await ended()).length >= round * 60);
    await crew.kill();
  }
  await eventually("all are done", async () => (await world.storedMessages()) === 0);

  const whats = (await ended()).map(({ what }) => what);
  expect(whats).toHaveLength(tenants.length * perTenant);
  expect(new Set(whats).size).toBe(whats.length);
  const [had] = await world.query<{ running: number; tenant: number }>(
    "SELECT max(running)::integer AS running, max(of_tenant)::integer AS tenant FROM had",
  );
  expect(had).toEqual({ running: limits.running, tenant: limits.runningPerKey });
  const starts = await world.query<{ us: number }>(
    "SELECT (extract(epoch FROM at) * 1e6)::bigint AS us FROM given ORDER BY at",
  );
  let fullest = 0;
  for (const [first, { us: from }] of starts.entries()) {
    for (const [last, { us: to }] of starts.entries()) {
      if (last < first) continue;
      const allowed = limits.burst + ((to - from) * 60) / 1e6;
      if (last - first + 1 > allowed) throw new Error(`${last - first + 1} messages started in ${to - from} us`);
      fullest = Math.max(fullest, (last - first + 1) / allowed);
    }
  }
  console.log(
    `${starts.length} starts of ${whats.length} messages, ${crew.kills} kills; at most ${had!.running} ran, ` +
      `${had!.tenant} of a tenant; the fullest window had ${Math.round(fullest * 100)} % of what was allowed`,
  );
});
