import { beforeEach, describe, expect, inject, it } from "vitest";
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

const demoDatabases = () =>
  rowsOf(inject("databaseUrl"), "SELECT datname FROM pg_database WHERE datname LIKE 'hawser\\_demo\\_%' ORDER BY 1");

describe.sequential("npm run demo", { timeout: 120_000 }, () => {
  /** Databases of demos that were killed earlier, on a server of somebody's. */
  let before: unknown[];
  beforeEach(async () => {
    before = await demoDatabases();
  });

  it("shows messages both ways, one that waits in the table, and SQL with NATS", async () => {
    // The demo ends with 0 if each program did, and each count is what it expects.
    const { status, stdout, stderr } = await startDemo().ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const shown = stdout.replace(/\d+/g, "N");
    expect(shown).toContain('billing N │ got "order N: N m of rope" from shop-N');
    expect(shown).toContain('shop    N │ got "invoice for order N: N m of rope" from billing-N');
    expect(stdout.lastIndexOf('got "payment of')).toBeGreaterThan(stdout.indexOf("count(*) = 1"));
    expect(shown).toContain('got "N m of rope" on orders.new, trace N');
    expect(stdout).toContain("SELECT nats_get_text('stock', 'rope');  →  200 m");
    expect(stdout).toContain("→  sensors.engine 71.5, sensors.engine 84.0, sensors.engine 93.2");
    expect(await demoDatabases()).toEqual(before);
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
    expect(pidsIn(stdout)).not.toEqual([]);
    expect(pidsIn(stdout).filter(isAlive)).toEqual([]);
    expect(await demoDatabases()).toEqual(before);
  });
});
