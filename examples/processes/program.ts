/**
 * A participant as a program. Arguments: pattern, name, milliseconds between two cycles. What everybody waits for is
 * asked and told over IPC.
 */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { patterns } from "../patterns.js";
import { cycleCount, type Part, type Participant } from "./participant.js";

const [pattern, name, intervalMs] = process.argv.slice(2) as [keyof typeof patterns, string, string];
const parts: Readonly<Record<string, Part>> = patterns[pattern];
const part = parts[name] as Part;

const participant: Participant = {
  name,
  databaseUrl: process.env["HAWSER_DATABASE_URL"] as string,
  async everybody(hasDone) {
    const told = once(process, "message");
    process.send?.(hasDone);
    await told;
  },
  async cycles(work) {
    for (let cycle = 1; cycle <= cycleCount; cycle++) {
      if (cycle > 1) await delay(Number(intervalMs));
      const began = performance.now();
      await work();
      participant.say(`cycle ${cycle}: sent and confirmed in ${(performance.now() - began).toFixed(1)} ms`);
    }
  },
  say: (line) => console.log(`${styleText("cyan", name.padEnd(8))} │ ${line}`),
};

// Whoever started this program is gone.
const abandoned = (): never => process.exit(1);
process.on("disconnect", abandoned);
await part(participant);
process.off("disconnect", abandoned);
process.disconnect();
