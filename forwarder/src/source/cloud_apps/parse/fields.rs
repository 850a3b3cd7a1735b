//! The fields of the API's records that are exported, under the names that they have there. Pure.

use crate::json::object::{Many, Raw, object};

object! {
    /// An activity.
    Activity {
        "_id" => id: Raw<'a>,
        "timestamp" => timestamp: Raw<'a>,
        "created" => created: Raw<'a>,
        "eventTypeName" => event_type: Raw<'a>,
        "description_metadata" => metadata: Metadata<'a>,
        "description" => description: Raw<'a>,
        "user" => user: User<'a>,
        "failedUserData" => failed_user: User<'a>,
        "resolvedActor" => actor: Actor<'a>,
        "appName" => app_name: Raw<'a>,
        "appId" => app_id: Raw<'a>,
        "device" => device: Device<'a>,
        "mainInfo" => main: Main<'a>,
    }
}

object! {
    /// What kind of activity.
    Metadata {
        "event_category" => category: Raw<'a>,
        "operation_name" => operation: Raw<'a>,
    }
}

object! {
    /// Who it was, as the service says.
    User {
        "userName" => name: Raw<'a>,
    }
}

object! {
    /// Who it was, as the portal has found out.
    Actor {
        "name" => name: Raw<'a>,
        "id" => id: Raw<'a>,
    }
}

object! {
    /// With what.
    Device {
        "clientIP" => client_ip: Raw<'a>,
        "userAgent" => user_agent: Raw<'a>,
    }
}

object! {
    /// On what.
    Main {
        "eventObjects" => objects: Many<Object<'a>>,
    }
}

object! {
    /// A thing that was touched.
    Object {
        "name" => name: Raw<'a>,
    }
}

object! {
    /// An alert.
    Alert {
        "_id" => id: Raw<'a>,
        "timestamp" => timestamp: Raw<'a>,
        "idValue" => kind: Raw<'a>,
        "policy" => policy: Policy<'a>,
        "title" => title: Raw<'a>,
        "description" => description: Raw<'a>,
        "severityValue" => severity: Raw<'a>,
        "threatScore" => score: Raw<'a>,
        "URL" => url: Raw<'a>,
        "audits" => audits: Many<Raw<'a>>,
        "entities" => entities: Many<Entity<'a>>,
    }
}

object! {
    /// The policy that an alert comes from.
    Policy {
        "policyType" => kind: Raw<'a>,
        "label" => label: Raw<'a>,
    }
}

object! {
    /// What an alert is about.
    Entity {
        "type" => kind: Raw<'a>,
        "id" => id: Raw<'a>,
        "label" => label: Raw<'a>,
        "pa" => primary_address: Raw<'a>,
        "em" => email: Raw<'a>,
        "policyType" => policy_type: Raw<'a>,
    }
}
