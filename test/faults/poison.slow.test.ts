/**
 * A message that kills the process of its handler each time it is begun.
 */
import { expect, it, onTestFinished } from "vitest";
import { RemoteProcessEnded } from "../scenarios/support/remote-process.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";

const maxAttempts = 3;
const window = 64;
/** The start that was not written, of a message that nobody suspected. */
const unwritten = 1;

/** A sender alone, or two whose handlers take so long that both have a message in hand whenever the process ends. */
const alone = { senders: ["a"] };
const besideAnother = { handlerMs: 300, perSecond: 5 };

it.each([
  ["among many", 150, alone],
  ["near the beginning, beside one of another sender, which it does not take along", 2, besideAnother],
])(
  "a message that kills its process ends as a dead letter after a limited number of starts, and those behind it are handled: %s",
  async (_where, number, load) => {
    const database = await testDatabase();
    onTestFinished(() => database.drop());
    const { url } = database;
    await using mesh = await Mesh.start({
      url,
      ...load,
      handler: "poison",
      poison: { sender: "a", listener: "x", number },
      peer: { defaults: { retry: { attempts: maxAttempts } } },
      window,
    });
    const x = mesh.member("x");
    let crashes = 0;
    const dead = () =>
      rowsOf(url, "SELECT encode(payload, 'escape') AS payload, error_code, attempts FROM hawser_data.dead_letters");
    for (;;) {
      const process = mesh.current(x);
      let letters = await dead();
      await eventually("it crashes, or the message is a dead letter", async () => {
        letters = await dead();
        return !process.isRunning || letters.length > 0;
      });
      if (letters.length > 0) break;
      expect((await process.ended).signal).toBe("SIGKILL");
      crashes += 1;
      await mesh.launch(x).catch((error: unknown) => {
        // The process may take the poison before it has reported that it runs.
        if (!(error instanceof RemoteProcessEnded)) throw error;
      });
    }
    // Handlers have more messages than they can handle in this time.
    await Promise.all(mesh.listeners.map((listener) => mesh.current(listener).call("slowDown", 0)));
    await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    const starts = mesh.begun(x).filter((line) => line.sender === "a" && line.number === number);
    console.log(`poison at ${number}: ${crashes} crashes, ${starts.length} starts; ${found.summary}`);
    expect(await dead()).toEqual([
      {
        payload: expect.stringMatching(new RegExp(`^a 1 ${number} \\d+ poison `)),
        error_code: "handler_crashed",
        attempts: maxAttempts,
      },
    ]);
    expect(starts).toHaveLength(crashes);
    expect(crashes).toBeGreaterThanOrEqual(maxAttempts);
    expect(crashes).toBeLessThanOrEqual(maxAttempts + unwritten);
    const { alarms, ...others } = found.findings;
    expect(problems(others)).toEqual([]);
    expect(alarms).toEqual([expect.stringContaining("x: dead_letter")]);
  },
  patienceMs,
);
