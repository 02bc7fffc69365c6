import { describe, expect, it } from "vitest";
import { startProgram } from "../support/program.js";

const scripts = [
  { script: "scripts/test-nats.ts", usage: "Usage: npm run test:nats -- 2.9|2.10|2.11|…|2.9.25|…", wrong: "2.8" },
  { script: "scripts/test-nats-js.ts", usage: "Usage: npm run test:nats-js -- 3.3.0|3.3.1|…", wrong: "2.9.0" },
  { script: "scripts/test-postgres.ts", usage: "Usage: npm run test:postgres -- 14|15|16|17|18", wrong: "13" },
];

describe.each(scripts)("$script", ({ script, usage, wrong }) => {
  it("refuses another version and says what it takes", async () => {
    const { status, stderr } = await startProgram(script, [wrong]).ended;
    expect(status).toBe(64);
    expect(stderr).toContain(usage);
  });
});
