//! `haystack user`: people who sign in at an issuer of tokens, and what they may do.

use crate::{Globals, connect, key, table::Table};
use anyhow::Context;
use clap::{Args, Subcommand};
use domain::{
    EntityId, OrgKey,
    access::{Permission, Rights, User, UserId},
};
use nats::registry::{self, Registered};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user (repeating it changes nothing)
    Add(AddArgs),
    /// List users and what they may do
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a user in nowhere any more, at once (repeating it changes nothing)
    Deactivate {
        /// The user's number
        user: UserId,
    },
    /// Let a user in again, with what it might do before
    Activate {
        /// The user's number
        user: UserId,
    },
    /// Let a user do things in an org, in place of what it might do there before; nothing at all takes
    /// the user out of the org
    Grant(GrantArgs),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Name for people
    name: String,
    /// The issuer whose tokens name the user (`iss`; one of auth.issuers)
    #[arg(long)]
    issuer: String,
    /// What the issuer calls the user (`sub`)
    #[arg(long)]
    subject: String,
    /// For people; it lets nobody in
    #[arg(long)]
    email: Option<String>,
    /// May do everything in every org
    #[arg(long)]
    platform_admin: bool,
}

#[derive(Args)]
pub(crate) struct GrantArgs {
    /// The user's number
    user: UserId,
    /// The org
    #[arg(long)]
    org: OrgKey,
    /// In the whole org: read, write, model, control, telemetry, admin
    #[arg(long, value_name = "PERMISSION", value_delimiter = ',')]
    may: Vec<Permission>,
    /// For single entities, beside that: 7=read or 7=read+write
    #[arg(long, value_name = "ENTITY=PERMISSIONS", value_delimiter = ',', value_parser = key::single)]
    entity: Vec<(EntityId, Vec<Permission>)>,
}

pub(crate) async fn run(command: UserCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::by_hand(&config).await?;
    match command {
        UserCommand::Add(args) => {
            let AddArgs { name, issuer, subject, email, platform_admin } = args;
            let known = config.auth.issuers.values().any(|it| it.issuer == issuer);
            let (id, active) = (UserId(i32::MAX), true);
            let user = User { id, name, email, issuer, subject, platform_admin, active };
            match registry::add_user(&wire, user).await? {
                Registered::Made(user) => println!("made user {} ({})", user.id, user.name),
                Registered::Unchanged(user) => println!("user {} exists ({})", user.id, user.name),
            }
            if !known {
                eprintln!(
                    "haystack: auth.issuers names no such issuer, so nobody can sign in as this user yet"
                );
            }
        }
        UserCommand::List { json } => {
            let directory = nats::model::load(&wire).await?;
            let users = directory.users();
            if json {
                println!("{}", serde_json::to_string_pretty(&users)?);
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(["id", "name", "issuer", "subject", "may"]);
            for user in users {
                let may: Vec<String> = match (user.active, user.platform_admin) {
                    (false, _) => vec!["nothing: not active".to_owned()],
                    (true, true) => vec!["everything".to_owned()],
                    (true, false) => directory
                        .grants(user.id)
                        .filter(|grant| !grant.rights.is_empty())
                        .map(|grant| format!("{}: {}", grant.org, words(&grant.rights)))
                        .collect(),
                };
                let User { id, name, issuer, subject, .. } = User::clone(&user);
                table.row([id.to_string(), name, issuer, subject, may.join("; ")]);
            }
            table.print();
        }
        UserCommand::Deactivate { user } => active(&wire, user, false).await?,
        UserCommand::Activate { user } => active(&wire, user, true).await?,
        UserCommand::Grant(GrantArgs { user, org, may, entity }) => {
            let rights = key::rights(may, entity);
            let grant = registry::grant(&wire, &org, user, rights).await?;
            if grant.rights.is_empty() {
                println!("user {user} may do nothing in {org} any more");
            } else {
                println!("user {user} may in {org}: {}", words(&grant.rights));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn active(wire: &nats::Wire, id: UserId, active: bool) -> anyhow::Result<()> {
    let user = registry::set_user_active(wire, id, active).await?;
    let user =
        user.with_context(|| format!("there is no user {id}; `haystack user list` names them"))?;
    let may = if active { "is let in again" } else { "is let in nowhere any more" };
    println!("user {id} ({}) {may}", user.name);
    Ok(())
}

fn words(rights: &Rights) -> String {
    let whole = rights.permissions.iter().map(|it| it.as_str().to_owned());
    let single = rights.entities.iter().map(|(entity, these)| {
        let these: Vec<_> = these.iter().map(|it| it.as_str()).collect();
        format!("{} of entity {entity}", these.join("+"))
    });
    whole.chain(single).collect::<Vec<_>>().join(", ")
}
