-- How Argo CD judges a SiemAgent. Goes into the ConfigMap argocd-cm under the key
-- resource.customizations.health.siemagent.dev_SiemAgent.
local health = {status = "Progressing", message = "The operator has not looked at it yet"}
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "Paused" and condition.status == "True" then
    return {status = "Suspended", message = condition.message}
  end
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is(name, status)
  return conditions[name] ~= nil and conditions[name].status == status
end
local function because(status, condition)
  return {status = status, message = condition.reason .. ": " .. condition.message}
end
if obj.spec.suspend then
  return {status = "Suspended", message = "spec.suspend is true"}
end
if is("Ready", "True") then
  return because("Healthy", conditions.Ready)
end
if is("Stalled", "True") then
  return because("Degraded", conditions.Stalled)
end
-- What waits for a roll-out keeps running; Ready says how it does.
if is("Reconciling", "True") and not string.find(conditions.Reconciling.reason, "^Rollout") then
  return because("Progressing", conditions.Reconciling)
end
if conditions.Ready ~= nil then
  return because("Degraded", conditions.Ready)
end
return health
