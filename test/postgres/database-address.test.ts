import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { DatabaseAddress } from "../../src/foundation/postgres/index.js";

function placesOf(databaseUrl: string | undefined, env: NodeJS.ProcessEnv = {}): string[] {
  return DatabaseAddress.of(databaseUrl, env).hosts.map((host) => {
    const { user, host: name, port, database } = new pg.Client(host);
    return `${user}@${name}:${port}/${database}`;
  });
}

describe("the address of a database", () => {
  it.each([
    ["postgres://u:p@a/d", ["u@a:5432/d"]],
    ["postgres://u:p@a:1,b:2,c/d", ["u@a:1/d", "u@b:2/d", "u@c:5432/d"]],
    ["postgresql://u:p%40q@a,b:2/d?sslmode=disable", ["u@a:5432/d", "u@b:2/d"]],
    ["postgres://u@[::1]:1,[fe80::2]/d", ["u@::1:1/d", "u@fe80::2:5432/d"]],
    ["postgres://u@/d?host=a,b&port=1,2", ["u@a:1/d", "u@b:2/d"]],
    ["postgres://u@/d?host=a,b&port=7", ["u@a:7/d", "u@b:7/d"]],
    ["postgres://u@/d?host=/run/one,/run/two", ["u@/run/one:5432/d", "u@/run/two:5432/d"]],
    ["host=a dbname=d user=u password=p", ["u@a:5432/d"]],
    [" host = a  port=7 dbname=d user='it\\'s'", ["it's@a:7/d"]],
    ["host=a,b port=1,2 dbname='my \\'d\\\\' user=u\\ v sslmode=disable", ["u v@a:1/my 'd\\", "u v@b:2/my 'd\\"]],
    ["host=/run/one,/run/two\tdbname=d\nuser=u password=''", ["u@/run/one:5432/d", "u@/run/two:5432/d"]],
    ["hostaddr=10.0.0.1 dbname=d user=ü@/?", ["ü@/?@10.0.0.1:5432/d"]],
  ])("%s has the hosts %j", (url, places) => {
    expect(placesOf(url)).toEqual(places);
  });

  it("has the password and the parameters of its keywords", () => {
    const text = "host=a dbname=d user=u password='a b\\'\\\\+%@/' application_name=app target_session_attrs=standby";
    const { hosts, sessionAttributes } = DatabaseAddress.of(text, {});
    const { password, connectionParameters } = new pg.Client(hosts[0]) as pg.Client & {
      connectionParameters: { application_name: string };
    };
    expect([password, connectionParameters.application_name, sessionAttributes]).toEqual([
      "a b'\\+%@/",
      "app",
      "standby",
    ]);
  });

  it("takes several hosts from the environment, too", () => {
    expect(placesOf("postgres://u@/d", { PGHOST: "a,b", PGPORT: "1,2" })).toEqual(["u@a:1/d", "u@b:2/d"]);
    expect(placesOf("postgres://u@c/d", { PGHOST: "a,b" })).toEqual(["u@c:5432/d"]);
    expect(DatabaseAddress.of(undefined, { PGHOST: "a,b" }).hosts).toHaveLength(2);
  });

  it("keeps hosts and parameters with another login", () => {
    const address = DatabaseAddress.of("postgres://u:p@a:1,b:2/d?target_session_attrs=standby", {});
    const other = address.withLogin({ user: "v", password: "q" });
    expect(other.described).toEqual({ role: "v", database: "d", server: "a:1, b:2" });
    expect(other.sessionAttributes).toBe("standby");
    expect(other.hosts.map(({ password }) => password)).toEqual(["q", "q"]);
  });

  it("wants a server that takes writes among several, and takes a single one as it is", () => {
    expect(DatabaseAddress.of("postgres://a/d", {}).sessionAttributes).toBe("any");
    expect(DatabaseAddress.of("postgres://a,b/d", {}).sessionAttributes).toBe("read-write");
    expect(DatabaseAddress.of("postgres://a,b/d?target_session_attrs=any", {}).sessionAttributes).toBe("any");
    const fromEnvironment = DatabaseAddress.of("postgres://a/d", { PGTARGETSESSIONATTRS: "primary" });
    expect(fromEnvironment.sessionAttributes).toBe("primary");
  });

  it.each([
    ["postgres://u:secret@a,,b/d", /an empty host at position 2 of its list; write it as host:port,host:port/],
    ["postgres://u:secret@a:x,b/d", /port "x" of the host at position 1; a port is a number from 1 to 65535/],
    ["postgres://u:secret@/d?host=a,b&port=1,2,3", /2 hosts and 3 ports; give one port for all, or one for each host/],
    ["postgres://u:secret@a/d?target_session_attrs=writer", /"writer" is unknown; use one of any, read-write, /],
    ["postgres://u:secret@a:abc/d", /has the port "abc"; a port is a number from 1 to 65535/],
    ["postgres://u:secret@[::1]:65536/d", /has the port "65536"; a port is/],
    // What stands there may be a part of a password.
    ["postgres://u:secret", /cannot be read; check the port, and percent-encode/],
    ["postgres://u@a:secret/b@c/d", /cannot be read; check the port, and percent-encode/],
    ["postgres://u:secret@a:65536,b/d", /port "65536" of the host at position 1; a port is a number from 1 to 65535/],
    ["postgres://u:secret@/d?host=a,b&port=1,x", /port "x" of the host at position 2/],
    ["host=a password='secret", /cannot be read behind the keyword host/],
    ["host=a password=it's secret", /cannot be read behind the keyword password/],
    ["=secret", /cannot be read at its beginning; it is a URL such as/],
    ["host=a password=secret service=app", /the keyword service, which is not supported; write its settings/],
    ["host=a hostaddr=10.0.0.1 password=secret", /the keywords host and hostaddr; give one of them/],
    ["host=a port=secret", /a value of the keyword port that is not valid; a port is a number from 1 to 65535/],
    ["host=a,b port=1,70000 password=secret", /a value of the keyword port that is not valid/],
    ["host=a password=my sslmode=secret", /the keyword sslmode that is not valid; use one of disable, no-verify/],
    ["password=my target_session_attrs=secret", /the keyword target_session_attrs that is not valid; use one of any/],
    [
      "host=a password=my secret=x user=u",
      /has an unknown keyword behind the keyword password; .* A value with spaces/,
    ],
    ["host=a password=my secret=x it's", /has an unknown keyword behind the keyword password/],
    ["secret=x host=a", /has an unknown keyword at its beginning/],
    ["host=a Password=secret", /has an unknown keyword behind the keyword host/],
  ])("%s is refused", (url, message) => {
    const read = () => DatabaseAddress.of(url, {});
    expect(read).toThrow(expect.objectContaining({ code: "invalid_argument" }));
    expect(read).toThrow(message);
    expect(read).not.toThrow(/sec/);
  });

  it("is where all sessions come from: nothing else in src/ makes a client of node-postgres", () => {
    const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
    const makers = files.filter((file) => /new pg\.(Client|Pool)\([^)]/.test(readFileSync(join("src", file), "utf8")));
    // The test kit runs what users give it, with the settings of their database.
    const ofUsers = ["development/testing/test-stack.ts", "development/testing/user-client.ts"];
    expect(makers.sort()).toEqual([
      ...ofUsers,
      ...["database-address.ts", "open-session.ts", "session-pool.ts"].map((file) => `foundation/postgres/${file}`),
    ]);
  });
});
