import { expect, it, onTestFinished, vi } from "vitest";
import { Serve } from "../../src/serve/index.js";

it.each([
  [
    { gatewaylisten: "127.0.0.1:0" },
    /^"gatewaylisten" is no option of Serve; did you mean gatewayListen\? The options are/,
  ],
  [
    { colour: "red" },
    /^"colour" is no option of Serve; the options are databaseUrl, .*signal, gatewayListen, .*bufferBytes/,
  ],
  [
    { tls: { cert: "c", key: "k", sslMode: "require" } },
    /^"sslMode" is no option of tls; did you mean sslmode\? The options are cert, key, sslmode, rootCertificate$/,
  ],
] as const)("refuses an option that there is not, with those that there are: %j", async (options, message) => {
  await expect(Serve.start(options as object)).rejects.toMatchObject({
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
  await expect(Serve.start(options)).rejects.toMatchObject({
    code: "invalid_argument",
    message: `${variable} is not a connection URI; it must begin with postgres:// or postgresql://`,
  });
});
