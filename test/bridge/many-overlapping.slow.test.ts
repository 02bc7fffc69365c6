/**
 * Subscriptions of one role that all match the same large message, beside those of another role.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { bridgeWorld } from "./support/bridge-world.js";

/** Each second takes several times the room that there is for all. */
const seconds = Math.max(5, atDepth(5));
const perSecond = 500;
const largeBytes = 1_000_000;

/** Patterns of so many words, each `x` or `*`. */
function patterns(words: number): readonly string[] {
  return Array.from({ length: 2 ** words }, (_, bits) =>
    Array.from({ length: words }, (_, word) => ((bits >> word) & 1 ? "*" : "x")).join("."),
  );
}

const stars = (pattern: string) => pattern.split("*").length - 1;

describe.each([
  { what: "one of which covers all others", words: 8, chosen: patterns(8) },
  {
    what: "none of which covers another",
    words: 11,
    chosen: patterns(11)
      .filter((pattern) => stars(pattern) === 5)
      .slice(0, 256),
  },
])("256 subscriptions of one role to overlapping subjects, $what", ({ words, chosen }) => {
  it("and a message of 1 MB each second: all of another role's arrive", async () => {
    await using world = await bridgeWorld({ sql: "CREATE TABLE ran (n int); GRANT INSERT ON ran TO PUBLIC" });
    const [crowd, other] = [await world.user(), await world.user()];
    await crowd.client.query("CREATE FUNCTION large(p bytea) RETURNS void LANGUAGE sql AS 'SELECT length(p)'");
    for (const pattern of chosen) {
      await crowd.client.query("SELECT nats_subscribe($1, 'large')", [`${world.prefix}.${pattern}`]);
    }
    await other.client.query(`
      CREATE FUNCTION take(p bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO public.ran SELECT convert_from(p, 'UTF8')::int WHERE p <> ''$$`);
    const subject = `${world.prefix}.other`;
    await other.client.query("SELECT nats_subscribe($1, 'take')", [subject]);
    await world.live(subject);
    await world.live(`${world.prefix}.${"x.".repeat(words)}`.slice(0, -1));
    const payload = Buffer.alloc(largeBytes, "x");
    let sent = 0;
    const startedAt = Date.now();
    for (let slice = 0; slice < seconds * 10; slice += 1) {
      if (slice % 10 === 0) world.nats.publish(`${world.prefix}.${"x.".repeat(words)}`.slice(0, -1), payload);
      for (let n = 0; n < perSecond / 10; n += 1) world.nats.publish(subject, `${sent++}`);
      await world.nats.flush();
      await delay(Math.max(0, startedAt + (slice + 1) * 100 - Date.now()));
    }
    await eventually("all have run", async () => (await world.count("SELECT count(*) FROM ran")) >= sent, 60_000).catch(
      () => undefined,
    );
    const ran = await world.count("SELECT count(DISTINCT n) FROM ran");
    console.log(
      `${chosen.length} subscriptions: ${ran} of ${sent} messages of the other role, in ${Date.now() - startedAt} ms`,
      world.log.lines?.filter((l: { level: string }) => l.level === "warn" || l.level === "error").slice(0, 5),
    );
    expect(ran).toBe(sent);
  });
});
