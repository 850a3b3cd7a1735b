//! The fields of the records that are exported, under the names that they have in Graph and in the tables. Pure.

use crate::json::object::{Dynamic, Many, Raw, object};

object! {
    /// An alert of `alerts_v2`.
    Alert {
        "id" => id: Raw<'a>,
        "providerAlertId" => provider_id: Raw<'a>,
        "createdDateTime" => created: Raw<'a>,
        "firstActivityDateTime" => first_activity: Raw<'a>,
        "lastActivityDateTime" => last_activity: Raw<'a>,
        "alertPolicyId" => policy_id: Raw<'a>,
        "detectorId" => detector_id: Raw<'a>,
        "category" => category: Raw<'a>,
        "title" => title: Raw<'a>,
        "description" => description: Raw<'a>,
        "severity" => severity: Raw<'a>,
        "actorDisplayName" => actor: Raw<'a>,
        "alertWebUrl" => url: Raw<'a>,
        "evidence" => evidence: Many<Evidence<'a>>,
    }
}

object! {
    /// What an alert rests on: the fields of all kinds.
    Evidence {
        "@odata.type" => kind: Raw<'a>,
        "userAccount" => user_account: Account<'a>,
        "account" => account: Account<'a>,
        "upn" => principal_name: Raw<'a>,
        "primaryAddress" => primary_address: Raw<'a>,
        "appId" => app_id: Raw<'a>,
        "saasAppId" => saas_app_id: Raw<'a>,
        "displayName" => display_name: Raw<'a>,
        "instanceName" => instance_name: Raw<'a>,
        "ipAddress" => address: Raw<'a>,
    }
}

object! {
    /// Whose account it is.
    Account {
        "userPrincipalName" => principal_name: Raw<'a>,
        "accountName" => name: Raw<'a>,
        "domainName" => domain: Raw<'a>,
        "displayName" => display_name: Raw<'a>,
    }
}

object! {
    /// A row of `CloudAppEvents`.
    CloudAppEvent {
        "ReportId" => id: Raw<'a>,
        "Timestamp" => timestamp: Raw<'a>,
        "ActionType" => action: Raw<'a>,
        "ActivityType" => activity_type: Raw<'a>,
        "ObjectType" => object_type: Raw<'a>,
        "Application" => application: Raw<'a>,
        "ApplicationId" => application_id: Raw<'a>,
        "AccountId" => account_id: Raw<'a>,
        "AccountObjectId" => account_object_id: Raw<'a>,
        "AccountDisplayName" => account_name: Raw<'a>,
        "IPAddress" => address: Raw<'a>,
        "UserAgent" => user_agent: Raw<'a>,
        "ActivityObjects" => objects: Dynamic<Many<ActivityObject<'a>>>,
        "RawEventData" => original: Dynamic<Original<'a>>,
    }
}

object! {
    /// `RawEventData`: the event as its own service wrote it.
    Original {
        "Id" => id: Raw<'a>,
        "UserId" => user: Raw<'a>,
        "MailboxOwnerUPN" => mailbox_owner: Raw<'a>,
        "actor" => actor: Actor<'a>,
    }
}

object! {
    /// Who it was, as Google Workspace writes it.
    Actor {
        "email" => email: Raw<'a>,
    }
}

object! {
    /// One of `ActivityObjects`.
    ActivityObject {
        "Type" => kind: Raw<'a>,
        "Role" => role: Raw<'a>,
        "Name" => name: Raw<'a>,
        "ServiceObjectType" => service_type: Raw<'a>,
    }
}

object! {
    /// A row of `IdentityLogonEvents`.
    IdentityLogonEvent {
        "ReportId" => id: Raw<'a>,
        "Timestamp" => timestamp: Raw<'a>,
        "ActionType" => action: Raw<'a>,
        "FailureReason" => failure: Raw<'a>,
        "Application" => application: Raw<'a>,
        "AccountUpn" => principal_name: Raw<'a>,
        "AccountName" => name: Raw<'a>,
        "AccountDomain" => domain: Raw<'a>,
        "AccountDisplayName" => display_name: Raw<'a>,
        "AccountObjectId" => object_id: Raw<'a>,
        "IPAddress" => address: Raw<'a>,
        "RawEventData" => original: Dynamic<Original<'a>>,
    }
}
