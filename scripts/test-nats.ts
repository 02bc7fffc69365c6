/**
 * `npm run test:nats -- <version> [vitest's arguments]`: the test suite on another version of nats-server.
 *
 * Go builds the server from its source; the cache directory keeps it. The tests find it first on PATH.
 */
import { installNats } from "./nats/install-nats.js";
import { runSuite } from "./suite/run-suite.js";

const [wanted = "", ...args] = process.argv.slice(2);
if (/^2\.(9|[1-9]\d)(\.\d+)?$/.test(wanted)) {
  const server = await installNats(wanted).catch((error: Error) => {
    console.error(
      `nats-server ${wanted} could not be built: ${error.message}\n` +
        "It requires Go and an existing version; or put a nats-server of that version first on PATH and run `npm test`.",
    );
  });
  if (server === undefined) {
    process.exitCode = 1;
  } else {
    const { binDirectory, version } = server;
    console.error(`Running the tests on nats-server ${version} (${binDirectory})`);
    await runSuite(args, { PATH: `${binDirectory}:${process.env["PATH"]}`, HAWSER_NATS_URL: undefined });
  }
} else {
  console.error(
    `"${wanted}" is not a version of nats-server that the tests support.\n` +
      "Usage: npm run test:nats -- 2.9|2.10|2.11|…|2.9.25|… [vitest's arguments]",
  );
  process.exitCode = 64;
}
