import { describe, expect, it } from "vitest";
import { createWebhookPolicy } from "./webhook-policy.ts";

const policy = (url: object = {}, allowPrivateNetworks = false) =>
  createWebhookPolicy({ enabled: true, headers: {}, secret: undefined, url, allowPrivateNetworks });

describe("where webhooks may go", () => {
  it.each([
    "127.0.0.1",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2001::1",
    "not an address",
  ])("is not %s, unless private networks are allowed", (address) => {
    expect(policy().allows(address)).toBe(false);
    expect(policy({}, true).allows(address)).toBe(true);
  });

  it.each(["8.8.8.8", "172.32.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1"])(
    "is %s",
    (address) => expect(policy().allows(address)).toBe(true),
  );

  it.each([
    "http://127.0.0.1/hook",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://[::1]:3000/",
    "http://[::ffff:7f00:1]/",
    "http://localhost:3000/",
    "https://169.254.169.254/latest/meta-data",
  ])("is not what %s hides", (url) => {
    expect(policy().refusal(url)).toContain("webhooks.allow_private_networks");
    expect(policy({}, true).refusal(url)).toBeUndefined();
  });

  it.each([
    [{}, "https://example.com/hook?token=1", undefined],
    [{}, "/hooks/mine", undefined],
    [{}, "//example.com/hook", "must be a URL"],
    [{}, "/\\example.com", "must be a URL"],
    [{}, "nonsense", "must be a URL"],
    [{}, "ftp://example.com", "must begin with https:// or http://"],
    [{}, "file:///etc/passwd", "must begin with https:// or http://"],
    [{}, `https://example.com/${"x".repeat(2_048)}`, "longer than 2048"],
    [{ max_url_length: 20 }, "https://example.com/hook", "longer than 20"],
    [{ require_https: true }, "http://example.com", "must begin with https://"],
    [{ require_https: true }, "/hooks/mine", undefined],
    [{ disable_loopback: true }, "/hooks/mine", "a path on this server"],
    [{ allowed_ports: [443] }, "https://example.com", undefined],
    [{ allowed_ports: [443] }, "http://example.com", "one of the ports 443"],
    [{ allowed_ports: [8443] }, "https://example.com:8443", undefined],
    [{ allowed_domains: ["*.example.com"] }, "https://a.b.Example.com", undefined],
    [{ allowed_domains: ["*.example.com"] }, "https://example.com", "must be on one of"],
    [{ allowed_domains: ["*.example.com"] }, "https://badexample.com", "must be on one of"],
    [{ allowed_domains: ["example.com"] }, "https://example.com", undefined],
    [{ allowed_domains: ["example.com"] }, "https://example.com.evil.org", "must be on one of"],
    [{ allowed_domains: [] }, "https://example.com", undefined],
  ])("follows the rules %j for %s", (rules, url, expected) => {
    const refusal = policy(rules).refusal(url);
    if (expected === undefined) expect(refusal).toBeUndefined();
    else expect(refusal).toContain(expected);
  });
});
