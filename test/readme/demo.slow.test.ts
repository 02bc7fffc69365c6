import { describe, expect, inject, it } from "vitest";
import { rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";

/** The demo on the servers of this run: it makes a database of its own there. */
function startDemo() {
  return startProgram("examples/demo.ts", [], {
    env: { HAWSER_DATABASE_URL: inject("databaseUrl"), HAWSER_NATS_URL: inject("natsUrl"), NO_COLOR: "1" },
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const pidsIn = (output: string) => [...output.matchAll(/started \S+, pid (\d+)/g)].map(([, pid]) => Number(pid));

async function demoDatabases(): Promise<unknown[]> {
  return await rowsOf(inject("databaseUrl"), "SELECT datname FROM pg_database WHERE datname LIKE 'hawser\\_demo\\_%'");
}

describe.sequential("npm run demo", { timeout: 120_000 }, () => {
  it("shows messages both ways, one that waits in the table, and its arrival", async () => {
    const { status, stdout, stderr } = await startDemo().ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const shown = stdout.replace(/\d+/g, "N");
    for (const line of [
      'billing N │ got "order N: N m of rope" from shop-N',
      'shop    N │ got "invoice for order N: N m of rope" from billing-N',
      'payment N │ sent "payment of N.N for order N": stored',
    ]) {
      expect(shown).toContain(line);
    }
    const counts = [...stdout.matchAll(/count\(\*\) = (\d+)/g)].map(([, count]) => count);
    expect(counts).toEqual(["1", "0", "3", "2", "1000", "0"]);
    expect(stdout.lastIndexOf('got "payment of')).toBeGreaterThan(stdout.indexOf("count(*) = 1"));
    expect(shown).toContain('got "N m of rope" on orders.new, trace N');
    expect(shown).toContain("reads bucket stock, key rope: N m");
    expect(stdout).toContain("SELECT nats_get_text('stock', 'rope');  →  200 m");
    expect(shown).toContain('asks limits.temperature for "engine": N.N');
    expect(stdout).toContain("→  sensors.engine 71.5, sensors.engine 84.0, sensors.engine 93.2");
    expect(stdout).toContain("SELECT string_agg(id::text, ', ' ORDER BY id) FROM audit;  →  1, 3");
    expect(shown).toContain("serve, pid N, is killed: SIGKILL");
    expect(new Set(pidsIn(stdout)).size).toBe(8);
    expect(await demoDatabases()).toEqual([]);
  });

  it("leaves nothing behind when it is ended in the middle", async () => {
    const demo = startDemo();
    await new Promise<void>((resolve) => {
      let seen = "";
      demo.child.stdout!.on("data", (chunk: Buffer) => {
        seen += chunk.toString();
        if (seen.includes("started examples/demo/shop.ts")) resolve();
      });
      void demo.ended.then(() => resolve());
    });
    demo.child.kill("SIGTERM");
    const { status, stdout, stderr } = await demo.ended;
    expect(stderr).toContain("ended by SIGTERM");
    expect(status).toBe(143);
    // Where this process was slow to hear of them, it may have come further.
    expect(pidsIn(stdout).length).toBeGreaterThanOrEqual(2);
    expect(pidsIn(stdout).filter(isAlive)).toEqual([]);
    expect(await demoDatabases()).toEqual([]);
  });

  it("says what is wrong when there is no Postgres to use", async () => {
    const nowhere = "postgresql://postgres@127.0.0.1:1/postgres";
    const { status, stderr } = await startProgram("examples/demo.ts", [], { env: { HAWSER_DATABASE_URL: nowhere } })
      .ended;
    expect(status).toBe(1);
    expect(stderr).toContain("The demo has failed: No Postgres can be used at postgresql://postgres@127.0.0.1:1");
  });
});
