import pg from "pg";
import { describe, expect, it } from "vitest";
import { ownTypes } from "../../src/foundation/postgres/index.js";

const own = (oid: number, text: string) => ownTypes.getTypeParser(oid, "text")(text);

describe("Hawser's own parsers", () => {
  it.each([
    [16, "t"],
    [16, "f"],
    [17, "\\x00ff5c"],
    [17, "a\\\\\\000\\377b"],
    [21, "-7"],
    [23, "17"],
    [26, "4000000000"],
    [700, "1.5"],
    [701, "-Infinity"],
    [114, '{"a": [1, null]}'],
    [3802, '"text"'],
    [25, "{it's}"],
    [19, "name"],
    [1184, "2026-11-29 12:34:56.789012+00"],
    [1184, "2026-11-29 12:34:56-03:30"],
    [1184, "1890-01-01 00:00:00+00:53:28"],
    [1184, "0044-03-15 12:00:00+00 BC"],
    [1184, "294276-12-31 23:59:59.9+00"],
    [1184, "infinity"],
    [1184, "-infinity"],
    [1000, "{t,NULL,f}"],
    [1001, '{"\\\\x00ff",NULL,"\\\\x"}'],
    [1007, "{{1,2},{3,-4}}"],
    [1009, '{plain,"a \\"b\\" \\\\, {c}",NULL,"NULL",""}'],
    [1009, "[2:3]={a,b}"],
    [1009, "{}"],
    [1016, "{9007199254740993,-1}"],
    [1185, '{"2026-11-29 12:34:56+00",infinity}'],
    [3807, '{"{\\"a\\": 1}"}'],
  ])("read a value of the type %i as node-postgres does: %s", (oid, text) => {
    expect(own(oid, text)).toEqual(pg.types.getTypeParser(oid, "text")(text));
  });

  it("read bigint exactly", () => {
    expect(own(20, "-9223372036854775808")).toBe(-(2n ** 63n));
  });
});
