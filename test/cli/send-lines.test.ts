import { PassThrough } from "node:stream";
import { expect, it } from "vitest";
import { sendLines } from "../../src/cli/send-lines.js";

it("hawser send --lines that is told to stop before it reads does not wait for its input", async () => {
  const input = new PassThrough() as unknown as NodeJS.ReadStream;
  const unused = async () => expect.unreachable("nothing was read");
  const options = { input, sendTo: unused, report: unused, base64: false, quiet: true, json: false };
  const sending = sendLines({ ...options, signal: AbortSignal.abort() });
  await expect(sending).rejects.toMatchObject({ code: "aborted" });
});
