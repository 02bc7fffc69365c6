/**
 * Delays that no function causes: a suspended process, and a connection to NATS that was replaced long before.
 */

import { performance } from "node:perf_hooks";
import { describe, expect, it } from "vitest";
import { natsDrainMs } from "../../src/nats/connections/draining.js";
import { ServeProcess } from "../faults/support/serve-process.js";
import { eventually } from "../support/eventually.js";
import { bridgeWorld } from "./support/bridge-world.js";

const sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

describe("a function", () => {
  it("whose process is suspended for longer than its timeout has run, once", async () => {
    await using world = await bridgeWorld({
      sql: `
        CREATE TABLE ran (n text);
        CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
          IF payload = 'slow' THEN PERFORM pg_sleep(1); END IF;
          INSERT INTO ran VALUES (convert_from(payload, 'UTF8'));
        END $$`,
    });
    const times = (n: string) => world.count(`SELECT count(*) FROM ran WHERE n = '${n}'`);
    const subscriberTimeoutMs = 3_000;
    await world.serve.stop();
    const timeout = ["--subscriber-timeout", `${subscriberTimeoutMs}ms`];
    await using serve = await ServeProcess.start(world.database.url, timeout);
    const subject = `${world.prefix}.s`;
    await world.subscribe(subject, "note(bytea)");
    world.nats.publish(subject, "slow");
    await world.counts(1, sleeping);
    serve.signal("SIGSTOP");
    const since = performance.now();
    // Beyond the statement timeout and all that is added to it.
    await eventually("all time limits are over", () => performance.now() - since > 3 * subscriberTimeoutMs, 60_000);
    serve.signal("SIGCONT");
    world.nats.publish(subject, "next");
    await eventually("the next one has run", async () => (await times("next")) === 1, 60_000);
    expect(await world.rows("SELECT FROM hawser_data.dead_letters")).toEqual([]);
    expect(await times("slow")).toBe(1);
  });

  it("that answers does so also if the connection to NATS was replaced long before", async () => {
    await using world = await bridgeWorld({
      serverOptions: { responder_timeout_ms: "60000" },
      sql: `
        CREATE FUNCTION takes_time(payload bytea) RETURNS bytea LANGUAGE plpgsql AS $$
        BEGIN
          IF payload <> '' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
          RETURN payload;
        END $$`,
    });
    const subject = `${world.prefix}.left`;
    await world.client.query("SELECT litmus_pgnats_register_responder($1, 'takes_time')", [subject]);
    await world.live(subject);
    await world.client.query("SELECT pg_advisory_lock(4711)");
    const answer = world.nats.request(subject, "x", { timeout: 60_000 });
    const waiting =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    await world.counts(1, waiting);
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    const since = performance.now();
    await eventually("connections that nothing uses are closed", () => performance.now() - since > natsDrainMs + 1_000);
    await world.client.query("SELECT pg_advisory_unlock(4711)");
    expect((await answer).string()).toBe("x");
  });
});
