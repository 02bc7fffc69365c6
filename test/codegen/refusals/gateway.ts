import { gatewayFn, gatewayValue, type RefusalCase } from "./spec-text.js";

const payload = gatewayValue("payload: true");
const payloadType = gatewayValue("payload_type: true");
const timeout = gatewayValue("timeout: true");
const typed = 'name: "foo_{T}"';
/** A function that is made with the tables. */
const local = 'name: "foo" local: true body_file: "a.sql" execute: "hawser_peer"';

/** Functions that the gateway answers. */
const functions: readonly RefusalCase[] = [
  {
    name: "a gateway function that takes a stream",
    proto: gatewayFn("", "").replace("Foo(FooRequest)", "Foo(stream FooRequest)"),
    says: "rpc FooService.Foo: an SQL function takes one request; only its answer may be a stream, of rows",
  },
  {
    name: "a method that is two kinds of function",
    proto: gatewayFn("", "int32 id = 1;").replace(
      "option",
      'option (hawser.spec.v1.sql_function) = {name: "bar" body_file: "a.sql"}; option',
    ),
    says: "rpc FooService.Foo: a method is either sql_function or gateway_function",
  },
  ...[
    { name: "a payload without T in the name", proto: gatewayFn(`bytes data = 1 ${payload};`, "") },
    { name: "T in the name without a payload", proto: gatewayFn("bytes data = 1;", "", typed) },
    { name: "an alias without T", proto: gatewayFn(`bytes data = 1 ${payload};`, "", `${typed} alias: "bar"`) },
    { name: "a name with T twice", proto: gatewayFn(`bytes data = 1 ${payload};`, "", 'name: "foo_{T}_{T}"') },
    {
      name: "overloads, and an alias with T",
      proto: gatewayFn(`bytes data = 1 ${payload};`, "", `${local} alias: "foo_{T}"`),
    },
    {
      name: "T in the name of overloads without a payload",
      proto: gatewayFn("bytes data = 1;", "", local.replace("foo", "foo_{T}")),
    },
  ].map((one) => ({
    ...one,
    says: "rpc FooService.Foo: a function has {T} in each of its names if, and only if, it has a payload",
  })),
  ...[
    {
      name: "two lists of payloads",
      proto: gatewayFn(`repeated bytes a = 1 ${payload}; repeated bytes b = 2 ${payload};`, "", typed),
    },
    {
      name: "a list of payloads and a result",
      proto: gatewayFn(`repeated bytes a = 1 ${payload};`, "int64 count = 1;", typed),
    },
  ].map((one) => ({
    ...one,
    says: "rpc FooService.Foo: a function has one list of payloads at most, and returns nothing if it has one",
  })),
  ...[
    { name: "two timeouts", proto: gatewayFn(`int32 a = 1 ${timeout}; int32 b = 2 ${timeout};`, "") },
    {
      name: "two payload types",
      proto: gatewayFn(`string a = 1 ${payloadType}; string b = 2 ${payloadType};`, "", typed),
    },
  ].map((one) => ({ ...one, says: "rpc FooService.Foo: a function has one timeout and one payload type at most" })),
  {
    name: "roles for a function that is not local",
    proto: gatewayFn("", "", 'name: "foo" execute: "hawser_peer"'),
    says: "rpc FooService.Foo: only a local function runs as its caller, takes a regproc, or names roles",
  },
  {
    name: "a local function without a body",
    proto: gatewayFn("", "", 'name: "foo" local: true'),
    says: "rpc FooService.Foo: a local function needs body_file",
  },
  ...[
    {
      name: "a function of which nothing says whether it changes something",
      proto: gatewayFn("", "", 'name: "foo"', ""),
    },
    {
      name: "a local function that changes something",
      proto: gatewayFn("", "", 'name: "foo" local: true body_file: "a.sql" changes: true', ""),
    },
  ].map((one) => ({
    ...one,
    says: "rpc FooService.Foo: a function that is not local needs changes: true if a call may change something in NATS",
  })),
  {
    name: "a body of the gateway that is not below the project",
    proto: gatewayFn("", "", 'name: "foo" body_file: "a/../../b.sql"'),
    says: 'rpc FooService.Foo: body_file "a/../../b.sql" is not a .sql file below the root of the project',
  },
  {
    name: "a gateway function with a name that needs quotes",
    proto: gatewayFn("", "", 'name: "Foo"'),
    says: 'rpc FooService.Foo: function name "Foo" is not a lower_snake_case name',
  },
  {
    name: "a gateway function with a name that no function takes",
    proto: gatewayFn("", "", 'name: "trim"'),
    says: 'rpc FooService.Foo: function name "trim" is a word of SQL\'s grammar; choose another name',
  },
  {
    name: "overloads with the same types",
    proto: gatewayFn(
      `string a = 1 [(hawser.spec.v1.rules) = {max_bytes: 1}]; bytes b = 2 [(hawser.spec.v1.gateway_value) = {payload: true}, (hawser.spec.v1.rules) = {max_bytes: 1}];`,
      "",
      `${local} alias: "foo"`,
      "",
    ),
    says: 'rpc FooService.Foo: function "foo(text, text)" is taken by rpc FooService.Foo in FILE; choose another',
  },
  ...[
    { name: "a function without a method of the client", option: 'name: "foo" method: ""' },
    { name: "a method of the client for an internal function", option: 'name: "foo" internal: true method: "foo"' },
    { name: "a method of the client for a function that is made with the tables", option: `${local} method: "foo"` },
  ].map(({ name, option }) => ({
    name,
    proto: gatewayFn("", "", option, option.includes("local") ? "" : "changes: false"),
    says: 'rpc FooService.Foo: a function that is neither internal nor created with the tables needs method: the name of the client\'s method, or "-"',
  })),
  {
    name: "a method of the client that is not in camelCase",
    proto: gatewayFn("", "", 'name: "foo" method: "Foo_bar"'),
    says: 'rpc FooService.Foo: method "Foo_bar" is not a name in camelCase',
  },
  {
    name: "an alias that is another function's name",
    proto: gatewayFn("", "", 'name: "foo" alias: "foo"'),
    says: 'rpc FooService.Foo: function "foo" is taken by rpc FooService.Foo in FILE; choose another',
  },
];

const parameters: readonly RefusalCase[] = [
  ...[
    { name: "a parameter that the client leaves out", field: "string a = 1", option: 'client_name: "-"' },
    {
      name: "an optional parameter among the client's options",
      field: "optional string a = 1",
      option: "client_option: true",
    },
  ].map(({ name, field, option }) => ({
    name,
    proto: gatewayFn(`${field} ${gatewayValue(option)};`, ""),
    says: "message FooRequest.a: the client can omit only results, and client_option is for required parameters",
  })),
  {
    name: "a name of the client that is not in camelCase",
    proto: gatewayFn(`string a = 1 ${gatewayValue('client_name: "a-b"')};`, ""),
    says: 'message FooRequest.a: client_name "a-b" is not a name in camelCase',
  },
  ...[
    { name: "a map as a parameter", proto: gatewayFn("map<string, string> tags = 1;", "") },
    { name: "a oneof of parameters", proto: gatewayFn("oneof one { string a = 1; string b = 2; }", "") },
  ].map((one, number) => ({
    ...one,
    says: `message FooRequest.${["tags", "a"][number]}: a parameter or result of a function must not be a map or part of a oneof`,
  })),
  {
    name: "a list as a parameter",
    proto: gatewayFn("google.protobuf.ListValue flag = 1;", ""),
    says: "message FooRequest.flag: a parameter is a string, bytes, a bool, an int32, an int64, a google.protobuf.Struct or a google.protobuf.Timestamp",
  },
  {
    name: "a bool for the gateway",
    proto: gatewayFn("bool flag = 1;", ""),
    says: "rpc FooService.Foo: only a local function takes a bool",
  },
  {
    name: "a list of numbers as a parameter",
    proto: gatewayFn("repeated int64 a = 1;", "", local, ""),
    says: "message FooRequest.a: only payloads may be repeated in a request",
  },
  ...["double flag = 1;", "FooResponse flag = 1;"].map((field, number) => ({
    name: `a parameter of the type ${field.split(" ")[0]}`,
    proto: gatewayFn(field, ""),
    says: `message FooRequest.flag: a function cannot take or return ${["real", "message"][number]}`,
  })),
  {
    name: "a parameter that is a setting",
    proto: gatewayFn('string a = 1 [(hawser.spec.v1.setting) = {default: "1"}];', ""),
    says: "message FooRequest.a: the option setting has no meaning here; it belongs in a message with the option settings",
  },
  ...['default: "1"', 'generated: "1"', 'type: "bigserial"'].map((option) => ({
    name: `the column option ${option} of a parameter of the gateway`,
    proto: gatewayFn(`string a = 1 [(hawser.spec.v1.column) = {${option}}];`, ""),
    says: "message FooRequest.a: a parameter or result of a function has no default, generated value or sequence",
  })),
  ...[`string a = 1 ${payload};`, "repeated bytes a = 1;"].map((field) => ({
    name: `the payload ${field.split(" [")[0]}`,
    proto: gatewayFn(field, "", typed),
    says: "message FooRequest.a: a payload is of type bytes, and only payloads, and an int64 of a result, may be repeated",
  })),
  {
    name: "a trace context of another type",
    proto: gatewayFn(`string a = 1 ${gatewayValue("trace_context: true")};`, ""),
    says: "message FooRequest.a: a trace context is added to headers, which are a google.protobuf.Struct",
  },
  ...[`bytes a = 1 ${payloadType};`, `string a = 1 ${timeout};`].map((field) => ({
    name: `${field.includes("payload") ? "a payload type" : "a timeout"} of another type`,
    proto: gatewayFn(field, ""),
    says: "message FooRequest.a: a payload type is a string, and a timeout an int32",
  })),
  {
    name: "no_default of a parameter that has none",
    proto: gatewayFn(`string a = 1 ${gatewayValue("no_default: true")};`, ""),
    says: "message FooRequest.a: no_default is for optional parameters; the others have none anyway",
  },
  ...[
    {
      field: `repeated bytes a = 1 [(hawser.spec.v1.gateway_value) = {payload: true}, RULES];`,
      takes: "repeated bytes, which takes max_items, max_total_bytes, max_item_bytes",
    },
    {
      field: `google.protobuf.Struct a = 1 [RULES];`,
      takes: "Struct, which takes max_bytes, max_items, max_name_bytes, max_value_bytes",
    },
  ].map(({ field, takes }) => ({
    name: `required on ${field.split(" ")[0]}`,
    proto: gatewayFn(
      field.replace("RULES", "(hawser.spec.v1.rules) = {required: true}"),
      "",
      field.startsWith("rep") ? typed : undefined,
    ),
    says: `message FooRequest.a: rule required does not apply to ${takes}`,
  })),
  ...[
    { field: "string a = 1;", rule: "max_bytes" },
    { field: "google.protobuf.Struct a = 1;", rule: "max_bytes" },
    { field: `bytes a = 1 ${payload};`, rule: "max_bytes" },
    { field: `repeated bytes a = 1 ${payload};`, rule: "max_items" },
    {
      field:
        "repeated bytes a = 1 [(hawser.spec.v1.gateway_value) = {payload: true}, (hawser.spec.v1.rules) = {max_items: 1}];",
      rule: "max_total_bytes",
    },
  ].map(({ field, rule }) => ({
    name: `no ${rule} of the parameter ${field.split(" = ")[0]}`,
    proto: gatewayFn(field, "", field.includes("payload") ? typed : undefined),
    says: `message FooRequest.a: a parameter of a function that roles can call needs a limit: add the rule ${rule}`,
  })),
  {
    name: "a parameter without a default behind one with a default",
    proto: gatewayFn("optional string a = 1; string b = 2;", ""),
    says: "message FooRequest.b: a parameter after one with a default needs a default too: make it optional",
  },
  {
    name: "a parameter whose name SQL reserves",
    proto: gatewayFn("string select = 1;", ""),
    says: 'message FooRequest.select: name "select" is a reserved word of SQL; choose another name',
  },
  {
    name: "a parameter whose name no function takes",
    proto: gatewayFn("string interval = 1;", ""),
    says: 'message FooRequest.interval: name "interval" is a word of SQL\'s grammar; choose another name',
  },
];

const results: readonly RefusalCase[] = [
  ...[
    { name: "a timeout as a result", proto: gatewayFn("", `int32 a = 1 ${timeout};`) },
    { name: "a payload type as a result", proto: gatewayFn("", `string a = 1 ${payloadType};`, typed) },
    {
      name: "a result with no_default",
      proto: gatewayFn("", `optional string a = 1 ${gatewayValue("no_default: true")};`),
    },
    { name: "a list as a result", proto: gatewayFn("", `repeated bytes a = 1 ${payload};`, typed) },
    {
      name: "a result as an option of the client",
      proto: gatewayFn("", `string a = 1 ${gatewayValue("client_option: true")};`),
    },
  ].map((one) => ({
    ...one,
    says: "message FooResponse.a: only a parameter has a payload type, a timeout, no default, a client option, or is a list of payloads",
  })),
  {
    name: "a list of numbers as a result of the gateway",
    proto: gatewayFn("", "repeated int64 a = 1;"),
    says: "rpc FooService.Foo: only a local function returns a list",
  },
  {
    name: "a result whose name no function takes",
    proto: gatewayFn("", "int64 position = 1;"),
    says: 'message FooResponse.position: name "position" is a word of SQL\'s grammar; choose another name',
  },
  {
    name: "rules on a result",
    proto: gatewayFn("", "string a = 1 [(hawser.spec.v1.rules) = {max_bytes: 3}];"),
    says: "message FooResponse.a: rules on a result would not be checked",
  },
  {
    name: "a payload beside another result",
    proto: gatewayFn(`string t = 1 ${payloadType};`, `bytes a = 1 ${payload}; string b = 2;`, typed),
    says: "message FooResponse.a: a payload is the only result, or none",
  },
  {
    name: "a payload in each of many rows",
    proto: gatewayFn(`string t = 1 ${payloadType};`, `bytes a = 1 ${payload};`, typed).replace(
      "returns (",
      "returns (stream ",
    ),
    says: "message FooResponse.a: a payload is the only result, or none",
  },
  {
    name: "a payload as a result without its type",
    proto: gatewayFn("", `bytes a = 1 ${payload};`, typed),
    says: "message FooResponse.a: a function that returns a payload has a parameter with payload_type",
  },
  ...["google.protobuf.Struct a = 1;", "google.protobuf.ListValue a = 1;"].map((field) => ({
    name: `the only result ${field}`,
    proto: gatewayFn("", field),
    says: "message FooResponse.a: an object or a list is a column of several, and not the only result",
  })),
];

/** SQL functions that the gateway answers. */
export const gatewayCases: readonly RefusalCase[] = [...functions, ...parameters, ...results];
