import { expect, it, onTestFinished, vi } from "vitest";
import { serve } from "../../src/nats/serve/index.js";

it.each([
  [{ lisen: "127.0.0.1:0" }, /^"lisen" is not an option of serve; did you mean listen\? The options are/],
  [
    { colour: "red" },
    /^"colour" is not an option of serve; the options are databaseUrl, .*tuning, listen, .*outboxRetentionMs$/,
  ],
  [
    { tuning: { savedbytes: 1 } },
    /^"savedbytes" is not an option of tuning; did you mean savedBytes\? The options are maxCallTimeoutMs, /,
  ],
  [{ savedBytes: 1_048_576 }, /^"savedBytes" is not an option of serve; the options are databaseUrl, /],
  [
    { tls: { cert: "c", key: "k", sslMode: "require" } },
    /^"sslMode" is not an option of tls; did you mean sslmode\? The options are cert, key, sslmode, rootCertificate$/,
  ],
] as const)("refuses an option that there is not, with those that there are: %j", async (options, message) => {
  await expect(serve(options as object)).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringMatching(message),
  });
});

it.each([
  ["HAWSER_DATABASE_URL", {}],
  ["HAWSER_EXECUTOR_URL", { databaseUrl: "postgres://127.0.0.1:1/none" }],
] as const)("reads %s, and names it where it cannot be right", async (variable, options) => {
  onTestFinished(() => void vi.unstubAllEnvs());
  vi.stubEnv(variable, "mysql://u:s3cret@h/db");
  await expect(serve(options)).rejects.toMatchObject({
    code: "invalid_argument",
    message: `${variable} is not a connection URI; it must begin with postgres:// or postgresql://, or have keywords such as host=db.internal dbname=app`,
  });
});
