//! `haystack token`: a token of our service account, for scripts that call an API.

use crate::Globals;
use anyhow::Context;
use clap::Args;
use control_api::sign_in::{Account, TokenClient};
use service::secrets;
use std::process::ExitCode;

/// The file in the folder of secrets that holds the account's password or secret.
const SECRET: &str = "auth-account";
/// What earlier deployments set instead.
const EARLIER: &str = "COGNITO_PASSWORD";

#[derive(Args)]
pub(crate) struct TokenArgs {}

pub(crate) async fn run(_: TokenArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let account = config.auth.account.as_ref().context(
        "auth.account is not set: where does the account sign in? (url, client_id, username or scope; \
         its secret is the file auth-account in secrets.dir)",
    )?;
    let secret = secrets::read_or(&config.secrets.dir, SECRET, EARLIER)?.reveal().to_owned();
    let (url, client_id) = (account.url.clone(), account.client_id.clone());
    let account = match &account.username {
        Some(username) => Account::Cognito {
            endpoint: url,
            client_id,
            username: username.clone(),
            password: secret,
        },
        None => Account::ClientCredentials {
            token_url: url,
            client_id,
            client_secret: secret,
            scope: account.scope.clone(),
        },
    };
    println!("{}", TokenClient::new(account)?.token().await?);
    Ok(ExitCode::SUCCESS)
}
