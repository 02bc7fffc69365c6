/**
 * Many messages arrive while Postgres is stopped: `hawser serve` keeps what there is room for and counts what it discards.
 * Its memory stays bounded, that of a process that does not lead as well.
 *
 * HAWSER_FAULT_MESSAGES says how many messages there are (default 60,000), and HAWSER_FAULT_AWAY_MS for how long Postgres is
 * stopped at least (default 1,000). With fewer messages than fill it, the buffer is made smaller.
 */
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { BridgeRun } from "./support/bridge-run.js";
import { patienceMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import type { ServeProcess } from "./support/serve-process.js";
import { prepareForSql } from "./support/sql-database.js";

const messages = Number(process.env["HAWSER_FAULT_MESSAGES"] ?? 60_000);
const awayMs = Number(process.env["HAWSER_FAULT_AWAY_MS"] ?? 1_000);
const limitMiB = 300;
const perSecond = 33_000;
const isFull = messages >= 1_000_000;

it.each(["stopped", "frozen"] as const)(
  `keeps below ${limitMiB} MiB when ${messages} messages arrive while Postgres is %s, and counts what it discards`,
  async (how) => {
    await using postgres = await ownPostgres();
    await prepareForSql(postgres.url);
    const flags = isFull ? [] : ["--buffer-bytes", `${3 * 2 ** 20}`];
    await using run = await BridgeRun.start({ databaseUrl: postgres.url, processes: 2, flags, perSecond: 0 });
    const { ledger, group, publisher } = run;
    const leader = await group.leader();
    const awaySince = performance.now();
    if (how === "stopped") await postgres.kill("SIGINT");
    else postgres.freeze();
    await publisher.burst(messages, perSecond);
    const published = performance.now() - awaySince;
    await delay(Math.max(0, awayMs - published));
    if (how === "stopped") await postgres.start();
    else postgres.resume();
    // What comes now finds room, and is run after all that was kept.
    await eventually(
      "what was kept is run",
      async () => {
        await publisher.burst(300, perSecond);
        const [found] = await ledger.query<{ lanes: number }>(
          `SELECT count(DISTINCT lane)::integer AS lanes FROM ledger WHERE id > ${messages}`,
        );
        return found!.lanes === ledger.lanes.length;
      },
      60_000,
    );
    await eventually(
      "the last message has arrived in each lane",
      async () => {
        await publisher.burst(3, perSecond);
        const rows = await ledger.query<{ id: number }>("SELECT max(id)::integer AS id FROM ledger GROUP BY lane");
        return Math.min(...rows.map(({ id }) => id)) > publisher.last - 300;
      },
      60_000,
    );
    await ledger.reaches(publisher.last);
    const findings = await ledger.audit(publisher.last);
    await expect.poll(() => discardedBy(leader), { timeout: 20_000 }).toBe(findings.missing.length);
    const peaks = group.members.map(peakMiB);
    console.log(
      `${messages} messages while Postgres was ${how} for ${Math.round(Math.max(awayMs, published) / 1_000)} s: ` +
        `${findings.summary}; ${discardedBy(leader)} discarded by its own account; peak memory ` +
        `${peaks.map((peak) => `${peak} MiB`).join(" and ")}`,
    );
    expect(findings.missing.length).toBeGreaterThan(0);
    expect({ ...findings, missing: [] }).toMatchObject({ interleaved: [], disordered: [], wrong: [] });
    expect(Math.max(...peaks)).toBeLessThan(limitMiB);
    expect(await group.leader()).toBe(leader);
  },
  patienceMs + awayMs + messages / 5,
);

function peakMiB({ pid }: ServeProcess): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))!;
  return Math.round(Number(kilobytes) / 1_024);
}

/** By its log. A message for two subscriptions counts twice. */
function discardedBy({ log }: ServeProcess): number {
  return (log.findLast(({ inAll }) => inAll !== undefined)?.["inAll"] as number | undefined) ?? 0;
}
