/**
 * Mistakes in a spec are refused, in words that name the file, the element, the rule and the remedy. What Postgres or the
 * compiler refuses anyway, in `npm run verify` or `npm run lint`, has no case here, and neither has a second form of a mistake.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateCodecs } from "../../codegen/codecs/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { compile, refusal, requestFor } from "./support/request.js";

/** Mistakes of one kind. Options of `hawser.spec.v1` and `buf.validate.field` are without their packages: `(table)`, `(field)`. */
interface Mistakes {
  /** Proto file around a mistake, behind its imports. */
  readonly within: (mistake: string) => string;
  /** Mistakes, by what is said of them behind the file's name. FILE is that name. */
  readonly said: Readonly<Record<string, string>>;
}

const table = (fields: string, option = 'primary_key: "id"') =>
  `message Foo { option (table) = {name: "foo" ${option}}; ${fields} }`;
const rpc = (option: string, request: string, response: string) =>
  `service FooService { rpc Foo(FooRequest) returns (FooResponse) { option ${option}; } }
   message FooRequest { ${request} } message FooResponse { ${response} }`;
const called = '(sql_function) = {name: "foo" body_file: "a.sql" execute: "hawser_peer"}';
const gateway = (option: string) => `(gateway_function) = {${option}}`;
const reading = 'name: "foo" method: "foo" changes: false';
const readingT = reading.replace("foo", "foo_{T}");
const details = (code: string) =>
  `option (error) = {code: "${code}" sqlstate: "55000" exit_status: 70 remedy: "Find it."};`;

const groups: Readonly<Record<string, Mistakes>> = {
  "a column": {
    within: (fields) => `option (named_rules) = {name: "street" about: "A street." rules: {max_bytes: 8}};
      ${table(`int32 id = 1; ${fields}`)}`,
    said: {
      'message Foo.a: unknown column type "money"; use one of smallint, integer, bigint, bigserial, text, bytea, boolean, timestamptz, jsonb, xid8, pg_snapshot, int8multirange':
        'string a = 2 [(column) = {type: "money"}];',
      "message Foo.a: column type text cannot hold bytes; use bytea": 'bytes a = 2 [(column) = {type: "text"}];',
      "message Foo.a: a column cannot be double; use int32, uint32, int64, uint64, string, bytes, bool or google.protobuf.Timestamp, or a list of one of them":
        "double a = 2;",
      "message Foo.a: a column cannot be part of oneof one; use optional fields and a check":
        "oneof one { string a = 2; string b = 3; }",
      'message Foo.order: column name "order" is a reserved word of SQL; choose another name': "int32 order = 2;",
      'message Foo.Price: column name "Price" is not a lower_snake_case name': "int32 Price = 2;",
      [`message Foo.${"a".repeat(54)}: constraint name "foo_${"a".repeat(54)}_bytes" has 64 bytes, Postgres takes 63; shorten it`]: `string ${"a".repeat(54)} = 2 [(rules) = {max_bytes: 5}];`,
      "message Foo.a: a generated column cannot have a default":
        'string a = 2 [(column) = {generated: "id::text" default: "1"}];',
      "message Foo.a: a bigserial column has its sequence as default and is never NULL":
        'int64 a = 2 [(column) = {type: "bigserial" default: "1"}];',
      "message Foo.a: a column of type integer cannot be uncompressed; only text and bytea can":
        "int32 a = 2 [(column) = {uncompressed: true}];",
      "message Foo.a: only a column of a view of a table has a source": 'int32 a = 2 [(column) = {source: "id"}];',
      "message Foo.a: the option setting has no meaning here; it belongs in a message with the option settings":
        'int32 a = 2 [(setting) = {default: "1"}];',
      "message Foo.a: rule max_bytes does not apply to int32, which takes min, max":
        "int32 a = 2 [(rules) = {max_bytes: 4}];",
      "message Foo.a: rule max_bytes does not apply to repeated string, which takes max_items":
        "repeated string a = 2 [(rules) = {max_bytes: 4}];",
      "message Foo.a: rule max: 40000 lies outside the type, -32768 to 32767":
        'int32 a = 2 [(column) = {type: "smallint"}, (rules) = {max: 40000}];',
      "message Foo.a: rule min: 2 is above max, 1": "int32 a = 2 [(rules) = {min: 2 max: 1}];",
      "message Foo.a: rule min_bytes: 9 is above max_bytes, 8":
        'string a = 2 [(rules) = {named: "street" min_bytes: 9}];',
      "message Foo.a: rule max_bytes: 1073741825 is more than 1 GiB, which no value can have":
        "string a = 2 [(rules) = {max_bytes: 1073741825}];",
      'message Foo.a: rule pattern: "^\\d+$" has "\\d" where JavaScript and Postgres may differ; use only classes, \\uXXXX, groups and quantifiers':
        'string a = 2 [(rules) = {pattern: "^\\\\d+$" pattern_means: "must be digits"}];',
      'message Foo.a: rule pattern_means: say what the pattern means, beginning with "must "':
        'string a = 2 [(rules) = {pattern: "^a$"}];',
      "message Foo.a: rule pattern_means: there is no pattern":
        'string a = 2 [(rules) = {pattern_means: "must be a"}];',
      'message Foo.a: there are no rules named "stret"; there are street': 'string a = 2 [(rules) = {named: "stret"}];',
      'message Foo.a: rule max_bytes is one of "street" already':
        'string a = 2 [(rules) = {named: "street" max_bytes: 4}];',
    },
  },
  "a table": {
    within: (option) =>
      table(
        "int32 id = 1; string name = 2; optional int32 maybe = 3; string long = 4 [(rules) = {max_bytes: 1500}];",
        option,
      ),
    said: {
      'message Foo: table "foo" has no primary_key': "",
      'message Foo: primary_key names an unknown column "number"; the table has id, name, maybe, long':
        'primary_key: "number"',
      'message Foo: primary_key names column "id" twice': 'primary_key: ["id", "id"]',
      'message Foo: primary_key names column "maybe", which is optional; keys are never NULL': 'primary_key: "maybe"',
      "message Foo: segments: count is 1; a partitioned table needs 2 or more":
        'primary_key: "id" segments: {column: "id" count: 1}',
      "message Foo: fillfactor is 5; give a percentage from 10 to 99": 'primary_key: "id" fillfactor: 5',
      "message Foo: a table with segments cannot have a fillfactor; Postgres takes it of partitions alone":
        'primary_key: "id" segments: {column: "id" count: 2} fillfactor: 50',
      'message Foo: index "foo_name" names no column': 'primary_key: "id" index: {name: "foo_name"}',
      'message Foo: two indexes are named "foo_id"; give each a different name':
        'primary_key: "id" index: {name: "foo_id" columns: "id"} index: {name: "foo_id" columns: "(-id)"}',
      'message Foo: check "odd" has no expression': 'primary_key: "id" check: {name: "odd"}',
      "message Foo: a row has 1 values for 4 columns that are not generated": 'primary_key: "id" row: {values: "1"}',
      'message Foo: unknown role "public"; use one of hawser_owner, hawser_peer, hawser_nats, hawser_bridge, hawser_executor, hawser_viewer':
        'primary_key: "id" grant: {role: "public" privileges: "SELECT"}',
      'message Foo: unknown privilege "DELETE" on columns; use some of SELECT, INSERT, UPDATE, REFERENCES':
        'primary_key: "id" grant: {role: "hawser_peer" privileges: "DELETE" columns: "id"}',
      "message Foo: the grant to hawser_peer names no privilege; use some of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER":
        'primary_key: "id" grant: {role: "hawser_peer"}',
      'message Foo: notify: column "name" has no greatest length; name only numbers, booleans, times and text with max_bytes':
        'primary_key: "id" notify: {channel: "foo" columns: "name"}',
      "message Foo: notify: the payload can reach 9092 bytes, and NOTIFY takes less than 8000; name fewer columns":
        'primary_key: "id" notify: {channel: "foo" columns: ["id", "long"]}',
    },
  },
  "a view": {
    within: (view) => `${table("int32 id = 1;")} message Bar { ${view} }`,
    said: {
      "message Bar: a view of a table has neither query_file nor select":
        'option (view) = {name: "bar" table: "foo" select: "hawser_peer"}; int32 id = 1;',
      'message Bar.id: the column has the type integer in the table "foo"':
        'option (view) = {name: "bar" table: "foo"}; int64 id = 1;',
      'message Bar.other: the table "foo" has no such column':
        'option (view) = {name: "bar" table: "foo"}; int32 other = 1;',
      "message Bar: a message is either a table, a view, a group of settings or a group of metrics":
        'option (view) = {name: "bar"}; option (settings) = {title: "Bar"}; int32 id = 1;',
    },
  },
  "a method": {
    within: (method) =>
      `service FooService { rpc Foo ${method}; } } message FooRequest {} message FooResponse { int32 id = 1; }`,
    said: {
      "rpc FooService.Foo: an SQL function cannot stream; use returns_set for any number of rows": `(FooRequest) returns (stream FooResponse) { option ${called}`,
      "rpc FooService.Foo: an SQL function takes one request; only its answer may be a stream, of rows": `(stream FooRequest) returns (FooResponse) { option ${gateway(reading)}`,
      "rpc FooService.Foo: a method is either sql_function or gateway_function": `(FooRequest) returns (FooResponse) { option ${called}; option ${gateway(reading)}`,
    },
  },
  "an SQL function": {
    within: (option) => rpc(`(sql_function) = {name: "foo" ${option}}`, "int32 p_id = 1;", "int32 id = 1;"),
    said: {
      'rpc FooService.Foo: body_file "../foo.sql" is not a .sql file below the root of the project':
        'body_file: "../foo.sql"',
      'rpc FooService.Foo: settings "search_path = public" is not of the form "name = value", or is the search_path':
        'body_file: "a.sql" settings: "search_path = public"',
      'rpc FooService.Foo: settings "a = b; DROP TABLE c" is not of the form "name = value", or is the search_path':
        'body_file: "a.sql" settings: "a = b; DROP TABLE c"',
    },
  },
  "a parameter or result of an SQL function": {
    within: (parameters) => {
      const [request = "", response = "int32 id = 1;"] = parameters.split(" → ");
      return rpc(called, request, response);
    },
    said: {
      "rpc FooService.Foo: FooResponse has no field; a function returns at least one column": "int32 p_a = 1; → ",
      "message FooResponse.id: rules on a result, or on a parameter of a function that no role executes, would not be checked":
        "int32 p_a = 1; → int32 id = 1 [(rules) = {min: 1}];",
      "message FooRequest.p_a: a parameter or result of a function has no default, generated value or sequence":
        'int32 p_a = 1 [(column) = {default: "1"}];',
      'message FooRequest.time: column name "time" is a word of SQL\'s grammar; choose another name': "int32 time = 1;",
      'message FooRequest.a: two parameters of Foo are named "a" without their p_': "int32 p_a = 1; int32 a = 2;",
      "message FooRequest.id: a result of Foo has the same name; begin the parameter's with p_": "int32 id = 1;",
      "message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule max_bytes":
        "optional bytes p_a = 1;",
      "message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule max_items":
        "repeated int64 p_a = 1;",
      "message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule max_total_bytes":
        "repeated string p_a = 1 [(rules) = {max_items: 1}];",
    },
  },
  "a function of the gateway": {
    within: (option) => rpc(gateway(option), "", "int64 id = 1;"),
    said: {
      "rpc FooService.Foo: a function that is not local needs changes: true if a call may change something in NATS":
        'name: "foo" method: "foo"',
      'rpc FooService.Foo: a function that is neither internal nor created with the tables needs method: the name of the client\'s method, or "-"':
        'name: "foo" changes: false',
      'rpc FooService.Foo: method "Foo_bar" is not a name in camelCase': 'name: "foo" method: "Foo_bar" changes: false',
      "rpc FooService.Foo: a function has {T} in each of its names if, and only if, it has a payload": readingT,
      "rpc FooService.Foo: only a local function runs as its caller, takes a regproc, or names roles":
        'name: "foo" execute: "hawser_peer" changes: false',
      "rpc FooService.Foo: a local function needs body_file": 'name: "foo" local: true execute: "hawser_peer"',
      // The second one would replace the first.
      'rpc FooService.Foo: function "foo" is taken by rpc FooService.Foo in FILE; choose another': `${reading} alias: "foo"`,
    },
  },
  "a parameter of a function of the gateway": {
    within: (request) => rpc(gateway(request.includes("payload") ? readingT : reading), request, ""),
    said: {
      "message FooRequest.a: a payload is of type bytes, and only payloads, and an int64 of a result, may be repeated":
        "string a = 1 [(gateway_value) = {payload: true}];",
      "message FooRequest.a: a payload type is a string, and a timeout an int32":
        "string a = 1 [(gateway_value) = {timeout: true}];",
      "message FooRequest.a: a trace context is added to headers, which are a google.protobuf.Struct":
        "string a = 1 [(gateway_value) = {trace_context: true}];",
      "message FooRequest.a: a function cannot take or return real": "double a = 1;",
      "message FooRequest.a: a parameter of a function that roles can call needs a limit: add the rule max_bytes":
        "string a = 1;",
      "message FooRequest.b: a parameter after one with a default needs a default too: make it optional":
        "optional int32 a = 1; int32 b = 2;",
      "rpc FooService.Foo: a function has one list of payloads at most, and returns nothing if it has one":
        "repeated bytes a = 1 [(gateway_value) = {payload: true}]; repeated bytes b = 2 [(gateway_value) = {payload: true}];",
    },
  },
  "a result of a function of the gateway": {
    within: (response) => rpc(gateway(response.includes("payload") ? readingT : reading), "", response),
    said: {
      "message FooResponse.a: rules on a result would not be checked": "string a = 1 [(rules) = {max_bytes: 3}];",
      "message FooResponse.a: only a parameter has a payload type, a timeout, no default, a client option, or is a list of payloads":
        "int32 a = 1 [(gateway_value) = {timeout: true}];",
      "message FooResponse.a: a payload is the only result, or none":
        "bytes a = 1 [(gateway_value) = {payload: true}]; string b = 2;",
      "message FooResponse.a: a function that returns a payload has a parameter with payload_type":
        "bytes a = 1 [(gateway_value) = {payload: true}];",
    },
  },
  "a setting": {
    within: (fields) => `message Foo { option (settings) = {title: "Foo"}; ${fields} }
      message Fixed { option (settings) = {title: "Fixed" fixed: true};
        bool a = 1 [(setting) = {default: "true" ${fields === "" ? "part: SETTING_PART_TUNING" : ""}}]; }`,
    said: {
      "message Foo.a: default 11 breaks the setting's own rule: must be 1 to 10":
        'uint32 a = 1 [(setting) = {default: "11"}, (rules) = {min: 1 max: 10}];',
      'message Foo.a: default "äöü" breaks the setting\'s own rule: must be at most 5 bytes long in UTF-8':
        'string a = 1 [(setting) = {default: "\\"äöü\\""}, (rules) = {max_bytes: 5}];',
      'message Foo.a: default "c" breaks the setting\'s own rule: must be one of "a", "b"':
        'string a = 1 [(setting) = {default: "\\"c\\""}, (rules) = {in: ["a", "b"]}];',
      'message Foo.a: default "c" breaks the setting\'s own rule: must be a or b':
        'string a = 1 [(setting) = {default: "\\"c\\""}, (rules) = {pattern: "^[ab]$" pattern_means: "must be a or b"}];',
      "message Foo.a: default 1.5 is not an integer below 2^53":
        'uint32 a = 1 [(setting) = {default: "1.5"}, (rules) = {min: 1 max: 10}];',
      "message Foo.a: default 1 is not a boolean": 'bool a = 1 [(setting) = {default: "1"}];',
      'message Foo.a: default peer is not JSON; write a number as 5000, a string as "\\"text\\"", a boolean as true':
        'string a = 1 [(setting) = {default: "peer"}];',
      "message Foo.a: the setting has no default; give it one, or make it optional": "bool a = 1 [(setting) = {}];",
      "message Foo.a: a setting that is a number needs a range: rules with min and max":
        'uint32 a = 1 [(setting) = {default: "1"}, (rules) = {min: 1}];',
      "message Foo.a: rule max: 9007199254740992 is above 2^53 - 1, which a setting cannot hold exactly":
        'uint64 a = 1 [(setting) = {default: "1"}, (rules) = {min: 1 max: 9007199254740992}];',
      "message Foo.a: a setting cannot be repeated string; use an integer type, bool or string":
        'repeated string a = 1 [(setting) = {default: "[]"}];',
      "message Foo.a: a field of a group of settings needs the option setting": "bool a = 1;",
      "message Foo.a: limit is for settings of a fixed group; remove limit":
        'bool a = 1 [(setting) = {default: "true" limit: "A"}];',
      "message Fixed.a: a setting of a fixed group has no part; remove part": "",
    },
  },
  "a metric": {
    within: (field) => `message Foo { option (metrics) = {title: "Foo"};
      // Help.
      ${field} }`,
    said: {
      "message Foo.hawser_a: a metric is a double": "int64 hawser_a = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      "message Foo.hawser_a: the comment above a metric is its help: a sentence that ends with a full stop":
        "// No full stop\n double hawser_a = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      "message Foo.a: the name of a metric begins with hawser_": "double a = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      "message Foo.hawser_a: the names of counters, and only they, end with _total":
        "double hawser_a = 1 [(metric) = {type: METRIC_TYPE_COUNTER}];",
      "message Foo.hawser_a_ms: the name ends with a word that Prometheus adds itself, or with a unit other than seconds":
        "double hawser_a_ms = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      'message Foo.hawser_a_seconds: the unit "" is not the one with which the name ends':
        "double hawser_a_seconds = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      "message Foo.hawser_a: histograms, and only they, have buckets":
        "double hawser_a = 1 [(metric) = {type: METRIC_TYPE_HISTOGRAM}];",
      "message Foo.hawser_a: the bounds of the buckets must be positive and ascend":
        "double hawser_a = 1 [(metric) = {type: METRIC_TYPE_HISTOGRAM bucket: [1, 1]}];",
      'message Foo.hawser_a: the label "le" is not a name in lower_snake_case, or has a meaning in Prometheus':
        'double hawser_a = 1 [(metric) = {type: METRIC_TYPE_GAUGE label: {name: "le"}}];',
      'message Foo.hawser_a: two values of the label a are named "x"; give each a different name':
        'double hawser_a = 1 [(metric) = {type: METRIC_TYPE_GAUGE label: {name: "a" value: ["x", "x"]}}];',
    },
  },
  "an error": {
    within: (option) => `option (error) = {code: "lost" ${option}};
      enum FooError { FOO_ERROR_UNSPECIFIED = 0;
        // It is lost.
        FOO_ERROR_LOST = 1; }`,
    said: {
      'enum FooError.FOO_ERROR_LOST: sqlstate "00000" is not five of 0-9 and A-Z, or means success; choose one of the class that fits':
        'sqlstate: "00000" exit_status: 70 remedy: "y"',
      "enum FooError.FOO_ERROR_LOST: exit_status 0 is none of 64 usage, 69 away, 70 failed, 73 taken, 75 again, 77 rights, 78 set-up":
        'sqlstate: "55000" remedy: "y"',
      "enum FooError.FOO_ERROR_LOST: the error has no remedy": 'sqlstate: "55000" exit_status: 70',
    },
  },
  "errors and their details": {
    within: (text) => text,
    said: {
      "enum FooError.FOO_ERROR_LOST: the error has no comment, which says what happened": `enum FooError { FOO_ERROR_UNSPECIFIED = 0; FOO_ERROR_LOST = 1; } ${details("lost")}`,
      'enum FooError.FOO_ERROR_ODD: the error has no details; give the option error with code: "odd"': `enum FooError { FOO_ERROR_UNSPECIFIED = 0; FOO_ERROR_ODD = 2;
          // It is lost.
          FOO_ERROR_LOST = 1; } ${details("lost")}`,
      'file: error "lost" has its details twice': `${details("lost")} ${details("lost")}`,
      "enum FooError.FOO_ERROR_LOST: number 0 means no error; give the error another number": `enum FooError { FOO_ERROR_LOST = 0; } ${details("lost")}`,
      "enum FooError.FOO_ERROR_GONE: wire code 1 is taken by lost": `enum FooError { option allow_alias = true; FOO_ERROR_UNSPECIFIED = 0;
          // It is lost.
          FOO_ERROR_LOST = 1; FOO_ERROR_GONE = 1; } ${details("lost")} ${details("gone")}`,
    },
  },
  "a message that is sent": {
    within: (text) => `message Foo { ${text} } enum Bar { BAR_UNSPECIFIED = 0; BAR_ONE = 1; BAR_TWO = 2; }`,
    said: {
      "message Foo.a: the option rules has no meaning here; messages that are sent have rules of buf.validate":
        "int32 a = 1 [(rules) = {min: 1}];",
      "message Foo.a: the option column has no meaning here; it belongs in the message of a table or of a function":
        'int32 a = 1 [(column) = {default: "1"}];',
      "message Foo.a: rule int32.gt is not generated for int32, which takes int32.gte, int32.lte":
        "int32 a = 1 [(field).int32.gt = 1];",
      "message Foo.a: rule repeated.items.string.max_bytes is not generated for repeated string, which takes repeated.min_items, repeated.max_items":
        "repeated string a = 1 [(field).repeated.items.string.max_bytes = 1];",
      "message Foo.a: rule uint32.gte: 2 is above the greatest value, 1":
        "uint32 a = 1 [(field).uint32 = {gte: 2 lte: 1}];",
      'message Foo.a: TypeScript refuses NUL in a text with rules; give the rule string.not_contains: "\\000"':
        "string a = 1 [(field).string.max_bytes = 1];",
      'message Foo.a: rule string.pattern: no named rules have these limits and the pattern "^[\\u0001-\\u001f]$"; add some, which say what it means':
        'string a = 1 [(field).string = {pattern: "^[\\\\x01-\\\\x1f]$" not_contains: "\\000"}];',
      "message Foo.a: jstype = JS_NUMBER limits the field; give the rule uint64.lte: at most 9007199254740991":
        "uint64 a = 1 [jstype = JS_NUMBER, (field).uint64.lte = 9007199254740992];",
      "message Foo.a: rules of an enum are enum.defined_only, and enum.not_in for its least or greatest numbers":
        "Bar a = 1 [(field).enum = {defined_only: true not_in: 1}];",
      "message Foo: rule oneof is not generated; use a oneof, or a rule in CEL":
        'option (buf.validate.message).oneof = {fields: "a"}; int32 a = 1;',
      'message Foo: a rule in CEL needs a message: "… must …"':
        'option (buf.validate.message).cel = {id: "a" expression: "this.a > 0"}; int32 a = 1;',
    },
  },
  "two elements of one name": {
    within: (text) => text,
    said: {
      'message Bar: name "foo" is taken by message Foo in FILE; choose another': `${table("int32 id = 1;")}
        ${table("int32 id = 1;").replace("message Foo", "message Bar")}`,
      'enum BarError.BAR_ERROR_LOST: error "lost" is taken by enum FooError.FOO_ERROR_LOST in FILE; choose another': `${details("lost")}
        enum FooError { FOO_ERROR_UNSPECIFIED = 0;
          // It is lost.
          FOO_ERROR_LOST = 1; }
        enum BarError { BAR_ERROR_UNSPECIFIED = 0;
          // It is lost.
          BAR_ERROR_LOST = 1; }`,
      'message Outer.Foo: group of settings "Foo" is taken by message Foo in FILE; choose another': `
        message Foo { option (settings) = {title: "Foo"}; bool on = 1 [(setting) = {default: "true"}]; }
        message Outer { message Foo { option (settings) = {title: "Foo"}; bool on = 1 [(setting) = {default: "true"}]; } }`,
      'rpc FooService.Foo: function "foo(text, text)" is taken by rpc FooService.Foo in FILE; choose another': rpc(
        gateway('name: "foo" alias: "foo" local: true body_file: "a.sql" execute: "hawser_peer"'),
        "string a = 1 [(rules) = {max_bytes: 1}]; bytes b = 2 [(gateway_value) = {payload: true}, (rules) = {max_bytes: 1}];",
        "",
      ),
      'file: name of rules "street" is taken by file in FILE; choose another': `
        option (named_rules) = {name: "street" about: "A street." rules: {max_bytes: 8}};
        option (named_rules) = {name: "street" about: "A street." rules: {max_bytes: 9}};`,
    },
  },
  "rules with a name": {
    within: (rules) => `option (named_rules) = {name: "street" ${rules}};`,
    said: {
      "file: rule min does not apply to named rules, which takes min_bytes, max_bytes, pattern, pattern_means, in":
        'about: "A street." rules: {min: 4}',
      'file: named_rules "street": give a name in lower_snake_case, about, and rules': "rules: {max_bytes: 4}",
    },
  },
};

/** SQL files, by what is said of them. SQL is the file's path; undefined: there is none. */
const sqlFiles: Readonly<Record<string, string | undefined>> = {
  "rpc FooService.Foo: body_file SQL is missing; it holds DECLARE … BEGIN … END": undefined,
  "rpc FooService.Foo: body_file SQL is not a PL/pgSQL block: DECLARE … BEGIN … END": "BEGIN NULL; END; DROP TABLE x",
  "rpc FooService.Foo: body_file SQL names the setting FooSettings.limit_ms, which is not a fixed setting":
    "BEGIN PERFORM @FooConstants.foo_ms@ + @FooSettings.limit_ms@; END",
  "rpc FooService.Foo: body_file SQL contains @foo(bar)@; known are @message_id(row)@, @headers_of(row)@, @with_failure(row)@, @route(row)@":
    "BEGIN PERFORM @foo(bar)@; END",
  'message Foo: query_file SQL is not a query: SELECT …, without ";" at its end': "SELECT 1 AS id;",
};

const ofSqlFile = (said: string, file: string): string =>
  said.includes("query_file")
    ? `message Foo { option (view) = {name: "foo" query_file: "${file}"}; int32 id = 1; }`
    : `${rpc(`(sql_function) = {name: "foo" body_file: "${file}"}`, "", "int32 id = 1;")}
       message FooConstants { option (settings) = {title: "Foo" fixed: true}; uint32 foo_ms = 1 [(setting) = {default: "7"}]; }
       message FooSettings { option (settings) = {title: "Foo"};
         uint32 limit_ms = 1 [(setting) = {default: "7"}, (rules) = {min: 0 max: 9}]; }`;

interface Refused {
  readonly path: string;
  readonly says: string;
}

const protos: Record<string, string> = {};

/** A case with a file and a package of its own: buf builds all of them at once, and a request asks for one. */
function refused(proto: string, says: string): Refused {
  const area = `case${Object.keys(protos).length}`;
  const path = `hawser/${area}/v1/spec.proto`;
  protos[path] = `syntax = "proto3"; package hawser.${area}.v1;
    import "buf/validate/validate.proto"; import "hawser/spec/v1/options.proto";
    ${proto.replace(/\((?=[a-z_]+\)(?: =|\.))/g, "(hawser.spec.v1.").replaceAll("(hawser.spec.v1.field)", "(buf.validate.field)")}`;
  return { path, says: says.replace("FILE", path) };
}

const cases = Object.entries(groups).map(([kind, { within, said }]): [kind: string, all: Refused[]] => [
  kind,
  Object.entries(said).map(([says, mistake]) => refused(within(mistake), says)),
]);
const sqlCases = Object.entries(sqlFiles).map(([says, text], index) => {
  const file = `schema/case_${index}.sql`;
  return { ...refused(ofSqlFile(says, file), says.replace("SQL", file)), file, text };
});
const right = refused(table("int32 id = 1;"), "");

/** A list without a greatest length. */
const framesPath = "hawser/peer/v1/frames.proto";
protos[framesPath] = `syntax = "proto3"; package hawser.peer.v1;
  message Frame { oneof kind { Batch batch = 1; } } message Batch { repeated bytes payloads = 1; }`;

let descriptors: Awaited<ReturnType<typeof compile>>;

beforeAll(async () => {
  descriptors = await compile(protos);
});

const refusalOf = ({ path }: Refused): Promise<string> => refusal(requestFor(descriptors, [path]), generateSql);

describe.each(cases)("a mistake in %s", (_, all) => {
  it.each(all)("is refused: $says", async (one) => {
    expect(await refusalOf(one)).toBe(`${one.path}: ${one.says}`);
  });
});

describe("an SQL file of the spec", () => {
  /** A root of the test's own: paths of SQL files are relative to the working directory. */
  const root = mkdtempSync(join(tmpdir(), "hawser-refusals-"));
  const before = process.cwd();

  beforeAll(() => {
    mkdirSync(join(root, "schema"));
    for (const { file, text } of sqlCases) if (text !== undefined) writeFileSync(join(root, file), text);
    process.chdir(root);
  });
  afterAll(() => {
    process.chdir(before);
    rmSync(root, { recursive: true });
  });

  it.each(sqlCases)("is refused: $says", async (one) => {
    expect(await refusalOf(one)).toBe(`${one.path}: ${one.says}`);
  });
});

describe("a generator", () => {
  it("refuses a list of a frame without a greatest length", async () => {
    expect(await refusal(requestFor(descriptors, [framesPath]), generateCodecs)).toBe(
      `${framesPath}: message Batch.payloads: a list of a frame has a rule repeated.max_items`,
    );
  });

  it("refuses nothing of what is right", async () => {
    expect(await refusalOf(right)).toBe("");
  });
});
