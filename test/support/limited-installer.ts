/**
 * A role that installs without being a superuser, as on managed servers: it may log in and make schemas in the database,
 * and a superuser has made beforehand what only superusers can make.
 */
import { randomBytes } from "node:crypto";
import { testDatabase, testServerUrl } from "./database.js";
import { onServer, rowsOf } from "./on-server.js";

/** The schema that dblink is in. */
export const dblinkSchema = "hawser_dblink";

const wrappers = ["litmus_pgnats_fdw", "pgnats_fdw"];

/** Rights of the role beyond CREATE on the database and dblink. */
export interface InstallerOptions {
  /** True for a role that may make roles (CREATEROLE). Default false. */
  readonly createRole?: boolean;
  /** The foreign data wrappers are there, without a validator, and it may use them. Default false. */
  readonly foreignDataWrappers?: boolean;
}

/** A role that installs. */
export interface Installer {
  readonly role: string;
  /** Connects to the database as that role. */
  readonly url: string;
}

/** An empty database with such a role. Disposing drops both. */
export interface LimitedInstaller extends AsyncDisposable {
  readonly role: string;
  /** Connects to the database as superuser. */
  readonly superuserUrl: string;
  /** Connects to it as the role. */
  readonly installerUrl: string;
  drop(): Promise<void>;
}

/**
 * Makes a database and the role.
 *
 * The run's other databases share their roles with it: the roles of Hawser exist already, made by somebody else. Where
 * that matters take a server of the test's own, and `makeInstaller`.
 */
export async function limitedInstaller(options: InstallerOptions = {}): Promise<LimitedInstaller> {
  const database = await testDatabase({ migrated: false });
  const { role, url } = await makeInstaller(database.url, options);
  const drop = async (): Promise<void> => {
    // Not only the database: what the role was granted elsewhere, such as memberships, would keep it from going.
    await onServer(database.url, `DROP OWNED BY ${role} CASCADE`);
    await database.drop();
    await onServer(testServerUrl(), `DROP ROLE ${role}`);
  };
  return { role, superuserUrl: database.url, installerUrl: url, drop, [Symbol.asyncDispose]: drop };
}

/** Makes the role for a database that the URL connects to as superuser. */
export async function makeInstaller(superuserUrl: string, options: InstallerOptions = {}): Promise<Installer> {
  const suffix = randomBytes(4).toString("hex");
  const role = `hawser_installer_${suffix}`;
  const url = new URL(superuserUrl);
  const database = decodeURIComponent(url.pathname.slice(1));
  url.username = role;
  url.password = `installer-${suffix}`;
  await onServer(
    superuserUrl,
    `CREATE ROLE ${role} LOGIN NOSUPERUSER ${options.createRole ? "CREATEROLE" : "NOCREATEROLE"} PASSWORD '${url.password}'`,
    `GRANT CREATE ON DATABASE ${database} TO ${role}`,
    // As everybody may in Postgres 14.
    `GRANT CREATE ON SCHEMA public TO ${role}`,
    ...dblinkFor(role),
    ...(options.foreignDataWrappers ? wrappers.flatMap((wrapper) => wrapperFor(wrapper, role)) : []),
  );
  await expectLimited(url.href);
  return { role, url: url.href };
}

/** dblink where nobody but the role can use it, and the role can let others use it. */
function dblinkFor(role: string): string[] {
  return [
    `CREATE SCHEMA ${dblinkSchema}`,
    `CREATE EXTENSION dblink SCHEMA ${dblinkSchema}`,
    `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ${dblinkSchema} FROM PUBLIC`,
    `GRANT USAGE ON SCHEMA ${dblinkSchema} TO ${role} WITH GRANT OPTION`,
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${dblinkSchema} TO ${role} WITH GRANT OPTION`,
    // Connects without a password, as whoever the server runs as: nothing for anybody but superusers.
    `REVOKE EXECUTE ON FUNCTION ${dblinkSchema}.dblink_connect_u(text) FROM ${role}`,
    `REVOKE EXECUTE ON FUNCTION ${dblinkSchema}.dblink_connect_u(text, text) FROM ${role}`,
  ];
}

function wrapperFor(wrapper: string, role: string): string[] {
  return [
    `CREATE FOREIGN DATA WRAPPER ${wrapper}`,
    `GRANT USAGE ON FOREIGN DATA WRAPPER ${wrapper} TO ${role} WITH GRANT OPTION`,
  ];
}

/** A test that such a role passes proves nothing if it is a superuser after all. */
async function expectLimited(installerUrl: string): Promise<void> {
  const [row] = await rowsOf(installerUrl, "SELECT current_user AS role, current_setting('is_superuser') AS superuser");
  if (row!["superuser"] !== "off") throw new Error(`The role ${row!["role"]} is a superuser.`);
}
