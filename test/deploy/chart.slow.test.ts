/**
 * The chart as helm renders it, by Kubernetes' own schemas, and what Hawser needs in it. helm is built by Go, which takes
 * minutes the first time.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { load, loadAll } from "js-yaml";
import { describe, expect, it } from "vitest";
import { toolOrSkip } from "../support/kept.js";
import { findHelm, findKubernetesValidate } from "../support/kubernetes-tools.js";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

const run = promisify(execFile);
const chart = join(projectDirectory, "deploy/chart");
const everything = join(projectDirectory, "test/deploy/everything.yaml");

const tools = await toolOrSkip(Promise.all([findHelm(), findKubernetesValidate()]), "The tests of the chart");

/** Properties of manifests that the tests read. */
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly data?: Readonly<Record<string, string>>;
  // biome-ignore lint/suspicious/noExplicitAny: each kind has its own, checked by Kubernetes' schemas
  readonly spec: any;
}

async function template(...args: string[]): Promise<string> {
  // A helm that Go has built takes Kubernetes for 1.20.
  const release = ["shop", chart, "--namespace", "shop", "--kube-version", "1.34.0"];
  const { stdout } = await run(tools![0], ["template", ...release, ...args]);
  return stdout;
}

async function manifests(...args: string[]): Promise<Manifest[]> {
  return (loadAll(await template(...args)) as (Manifest | null)[]).filter((each) => each !== null);
}

const named = (all: readonly Manifest[], kind: string, name: string): Manifest =>
  all.find((each) => each.kind === kind && each.metadata.name === name)!;

/** Labels of a workload's pods, and the variables and ports by name of their only container. */
function podOf({ spec }: Manifest) {
  const { metadata, spec: pod } = spec?.template ?? {};
  const { env = [], ports = [] } = pod?.containers[0] ?? {};
  return {
    labels: (metadata?.labels ?? {}) as Readonly<Record<string, string>>,
    env: new Map((env as readonly { name: string; value?: string }[]).map(({ name, value }) => [name, value])),
    ports: new Map(
      (ports as readonly { name: string; containerPort: number }[]).map((each) => [each.name, each.containerPort]),
    ),
  };
}

describe.skipIf(tools === undefined)("the chart", () => {
  it.each([
    ["defaults", []],
    ["everything on", ["--values", everything]],
  ])("is valid in two versions of Kubernetes with %s", async (_, args) => {
    const { python, path } = tools![1];
    const example = loadAll(readFileSync(join(projectDirectory, "deploy/cloudnative-pg.yaml"), "utf8")) as Manifest[];
    // Kinds of operators have schemas of their own.
    const known = [...(await manifests(...args)), ...example].filter(
      ({ kind }) => !/^(PodMonitor|PrometheusRule|Cluster)$/.test(kind),
    );
    const file = join(temporaryDirectory(), "rendered.yaml");
    writeFileSync(file, known.map((each) => `---\n${JSON.stringify(each)}\n`).join(""));
    for (const version of ["1.27", "1.37"]) {
      const validate = ["-m", "kubernetes_validate", "--strict", "--kubernetes-version", version, file];
      const { stdout } = await run(python, validate, { env: { ...process.env, PYTHONPATH: path } });
      expect(stdout.match(/passed/g), stdout).toHaveLength(known.length);
    }
  });

  it("is linted without a complaint", async () => {
    const { stdout } = await run(tools![0], ["lint", "--strict", "--values", everything, chart]);
    expect(stdout).toContain("0 chart(s) failed");
  });

  it.each([
    ["serve.stopTimeoutSeconds=20s", "stopTimeoutSeconds"],
    ["peers[0].name=a", "image"],
    ["database.secret=", "secret"],
    ["networkPolicy.postgres.port=0", "port"],
    ["user=0", "user"],
    ["serve.listenHost=::", "listenHost"],
    ["serve.tls.secret=", "allowPlaintext"],
    ["prometheusRule.runbookBaseUrl=wiki", "runbookBaseUrl"],
    ["pageUrl=ops", "pageUrl"],
    ["peers[0].monitorPort=0", "monitorPort"],
    ["workers[0].port=4100", "port"],
    [
      "peers[0].name=a,peers[0].image=i,peers[0].database.secret=s,workers[0].name=a,workers[0].image=i,workers[0].database.secret=s",
      "twice",
    ],
  ])("refuses %s", async (value, word) => {
    await expect(template("--set", value)).rejects.toThrow(word);
  });

  it("gives every pod a numeric user, a read-only root, and no token", async () => {
    const pods = (await manifests("--values", everything)).filter(({ spec }) => spec?.template !== undefined);
    const names = pods.map(({ metadata }) => metadata.name).toSorted();
    const ours = ["invoices", "mails", "plain", "stock"].map((name) => `shop-hawser-${name}`);
    expect(names).toEqual(["shop-hawser", ...ours]);
    for (const { spec } of pods) {
      const pod = spec.template.spec;
      expect(pod).toMatchObject({
        automountServiceAccountToken: false,
        securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
      });
      expect(pod.topologySpreadConstraints).toHaveLength(2);
      for (const container of [...pod.initContainers, ...pod.containers]) {
        expect(container.securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
      }
    }
  });

  it.each([
    ["IPv4", [], "0.0.0.0"],
    ["both families, if that is wanted", ["--set", "serve.listenHost=[::]"], "[::]"],
  ])("listens on %s", async (_, args, host) => {
    const { spec } = named(await manifests(...args), "StatefulSet", "shop-hawser").spec.template;
    const flags: readonly string[] = spec.containers[0].args;
    expect([flags[flags.indexOf("--listen") + 1], flags[flags.indexOf("--monitor") + 1]]).toEqual([
      `${host}:5434`,
      `${host}:9464`,
    ]);
  });

  it("gives only the init container the migration's secret", async () => {
    const { spec } = named(await manifests(), "StatefulSet", "shop-hawser").spec.template;
    const secretsOf = (container: unknown) => [...JSON.stringify(container).matchAll(/"secretKeyRef":{[^}]*}/g)].join();
    expect(secretsOf(spec.initContainers[0])).toContain("hawser-migration");
    expect(secretsOf(spec.containers)).not.toContain("hawser-migration");
  });

  it("gives a peer its pod's name and address, and longer to stop than it takes", async () => {
    const all = await manifests("--values", everything);
    const { spec } = named(all, "StatefulSet", "shop-hawser-invoices");
    expect(spec.serviceName).toBe("shop-hawser-invoices");
    expect(named(all, "Service", "shop-hawser-invoices").spec).toMatchObject({
      clusterIP: "None",
      publishNotReadyAddresses: true,
    });
    const pod = spec.template.spec;
    expect(pod.terminationGracePeriodSeconds).toBe(50);
    const { env } = podOf(named(all, "StatefulSet", "shop-hawser-invoices"));
    expect(env.get("PEER_NAME")).toBe("$(POD_NAME)");
    const address = "$(POD_NAME).shop-hawser-invoices.$(POD_NAMESPACE).svc.cluster.local:4100";
    expect(env.get("PEER_ADDRESS")).toBe(address);
    expect(named(all, "StatefulSet", "shop-hawser-stock").spec.replicas).toBe(0);
  });

  it("has a Deployment of a worker, which needs no name, no service and no port, and which nothing connects to", async () => {
    const all = await manifests("--values", everything);
    const mails = named(all, "Deployment", "shop-hawser-mails");
    expect(mails.spec.replicas).toBe(3);
    expect(mails.spec.template.spec.terminationGracePeriodSeconds).toBe(50);
    expect(podOf(mails).ports).toEqual(new Map([["monitor", 9466]]));
    const plain = named(all, "Deployment", "shop-hawser-plain");
    expect(podOf(plain).ports.size).toBe(0);
    expect([...podOf(plain).env.keys()].filter((name) => name.startsWith("PEER_"))).toEqual([]);
    expect(named(all, "NetworkPolicy", "shop-hawser-plain").spec.ingress).toBeUndefined();
    for (const name of ["mails", "plain"]) expect(named(all, "Service", `shop-hawser-${name}`)).toBeUndefined();
  });

  it("gives hawser serve the variables of the user, behind those that they may use", async () => {
    const { spec } = named(await manifests("--values", everything), "StatefulSet", "shop-hawser").spec.template;
    const [{ env, envFrom }] = spec.containers;
    const names = (env as readonly { readonly name: string }[]).map(({ name }) => name);
    expect(names.slice(-2)).toEqual(["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_RESOURCE_ATTRIBUTES"]);
    expect(names.indexOf("POD_NAME")).toBeLessThan(names.indexOf("OTEL_RESOURCE_ATTRIBUTES"));
    expect(envFrom).toEqual([{ secretRef: { name: "collector-headers" } }]);
  });

  it("lets only Postgres reach the gateway, and only the monitoring system the monitor", async () => {
    const { spec } = named(await manifests("--values", everything), "NetworkPolicy", "shop-hawser");
    expect(spec.ingress).toEqual([
      {
        ports: [{ protocol: "TCP", port: 5434 }],
        from: [{ podSelector: { matchLabels: { "cnpg.io/cluster": "postgres" } } }],
      },
      {
        ports: [{ protocol: "TCP", port: 9464 }],
        from: [expect.objectContaining({ namespaceSelector: expect.anything() })],
      },
    ]);
    const egress = spec.egress as readonly { readonly ports: readonly { protocol: string; port: number }[] }[];
    expect(egress.map(({ ports }) => ports)).toEqual([
      [{ protocol: "TCP", port: 5432 }],
      [{ protocol: "TCP", port: 4222 }],
      [
        { protocol: "UDP", port: 53 },
        { protocol: "TCP", port: 53 },
      ],
      [{ protocol: "TCP", port: 4318 }],
    ]);
    expect(named(await manifests(), "NetworkPolicy", "shop-hawser").spec.ingress).toHaveLength(1);
  });

  it("has the dashboards if they are wanted, with the label of Grafana's sidecar", async () => {
    expect((await manifests()).filter(({ kind }) => kind === "ConfigMap")).toEqual([]);
    const all = await manifests("--set", "dashboards.enabled=true,pageUrl=https://ops.acme.example/");
    for (const uid of ["hawser-peers", "hawser-serve"]) {
      const map = named(all, "ConfigMap", `shop-hawser-dashboard-${uid}`);
      expect(map.metadata.labels).toMatchObject({ grafana_dashboard: "1" });
      expect(map.data).toEqual({
        [`${uid}.json`]: readFileSync(join(chart, "dashboards", `${uid}.json`), "utf8").replaceAll(
          "https://page.example",
          "https://ops.acme.example",
        ),
      });
    }
  });

  it("scrapes serve as the job hawser, and workers and peers that have a port for it as hawser-peers", async () => {
    const all = await manifests("--values", everything);
    const monitors = all.filter(({ kind }) => kind === "PodMonitor");
    const podsOf = ({ spec }: Manifest) =>
      all.flatMap((each) => {
        const { labels, ports } = podOf(each);
        const wanted = Object.entries(spec.selector.matchLabels as Readonly<Record<string, string>>);
        const isSelected = wanted.every(([key, value]) => labels[key] === value);
        return isSelected && ports.has(spec.podMetricsEndpoints[0].port) ? [each.metadata.name] : [];
      });
    expect(monitors.map(podsOf)).toEqual([["shop-hawser-mails", "shop-hawser-invoices"], ["shop-hawser"]]);
    const [peers, serve] = monitors;
    expect(peers!.spec.podMetricsEndpoints[0].relabelings).toEqual([
      { targetLabel: "job", replacement: "hawser-peers" },
    ]);
    expect(podOf(named(all, "StatefulSet", "shop-hawser")).labels[serve!.spec.jobLabel]).toBe("hawser");
    const invoices = podOf(named(all, "StatefulSet", "shop-hawser-invoices"));
    expect(invoices.ports.get("monitor")).toBe(9465);
    expect(invoices.env.get("MONITOR_PORT")).toBe("9465");
    expect(named(all, "NetworkPolicy", "shop-hawser-invoices").spec.ingress).toContainEqual({
      ports: [{ protocol: "TCP", port: 9465 }],
      from: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "monitoring" } } }],
    });
  });

  it("has the alerts if they are wanted, as they are but for the links", async () => {
    expect((await manifests()).map(({ kind }) => kind)).not.toContain("PrometheusRule");
    const text = readFileSync(join(chart, "alerts.yaml"), "utf8");
    const { spec, metadata } = named(await manifests("--values", everything), "PrometheusRule", "shop-hawser");
    const linked = text
      .replaceAll("https://runbooks.example", "https://wiki.acme.example/hawser")
      .replaceAll("https://page.example", "https://ops.acme.example");
    expect(spec).toEqual(load(linked));
    expect(metadata.labels).toMatchObject({ release: "prometheus" });
    const plain = await manifests("--set", "prometheusRule.enabled=true");
    expect(named(plain, "PrometheusRule", "shop-hawser").spec).toEqual(load(text));
  });

  it("without serve has workers and peers alone, and their alerts", async () => {
    const all = await manifests("--values", everything, "--set", "serve.enabled=false");
    const names = (kind: string) => all.filter((each) => each.kind === kind).map(({ metadata }) => metadata.name);
    expect(names("StatefulSet")).toHaveLength(2);
    expect(names("PodMonitor")).toEqual(["shop-hawser-peers"]);
    const { groups } = named(all, "PrometheusRule", "shop-hawser").spec as { groups: readonly { name: string }[] };
    expect(groups.map(({ name }) => name)).toEqual(["hawser-peers"]);
  });
});
