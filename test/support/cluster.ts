/**
 * Postgres clusters of a test run, whatever starts them.
 *
 * HAWSER_TEST_ICU_LOCALE, such as `tr` or `en-US`, makes that ICU locale the default collation of each (Postgres 15 and newer);
 * HAWSER_TEST_LOCALE, such as `C.UTF-8`, that locale of the system.
 */
import { onServer, rowsOf } from "./on-server.js";

const icuLocale = process.env["HAWSER_TEST_ICU_LOCALE"];
const locale = process.env["HAWSER_TEST_LOCALE"];

/** Further arguments of `initdb`. */
export const initdbArguments: readonly string[] = [
  ...(locale === undefined ? [] : [`--locale=${locale}`]),
  ...(icuLocale === undefined ? [] : ["--locale-provider=icu", `--icu-locale=${icuLocale}`]),
];

/**
 * Prepares a cluster for tests. Autovacuum is off, since it ends dead rows, changes plans and holds locks whenever it likes.
 *
 * @param url connects as superuser
 * @param settings further settings, which a reload applies
 * @throws Error if the cluster has not the collation that was asked for
 */
export async function prepareCluster(url: string, settings: readonly string[] = []): Promise<void> {
  const all = ["autovacuum = off", ...settings];
  await onServer(url, ...all.map((setting) => `ALTER SYSTEM SET ${setting}`), "SELECT pg_reload_conf()");
  if (icuLocale === undefined) return;
  // Its name was daticulocale before Postgres 17. Turkish, whose capital i has a dot, shows that the database uses it.
  const [row] = await rowsOf(
    url,
    "SELECT to_jsonb(d) AS database, upper('i') AS capital FROM pg_database AS d WHERE datname = current_database()",
  );
  const { datlocale, daticulocale } = row!["database"] as Record<string, string | undefined>;
  const found = datlocale ?? daticulocale;
  const capital = icuLocale === "tr" ? "\u0130" : "I";
  if (found !== icuLocale || row!["capital"] !== capital) {
    throw new Error(
      `The collation of the cluster is ${found}, upper('i') is ${row!["capital"]}; asked for was ICU ${icuLocale}.`,
    );
  }
}
