//! News of `EVENTS` as they come. None is waited for and none is made up for: whoever hears one looks at
//! what is stored.

use crate::{Wire, model::ModelFault};
use async_nats::Subscriber;
use domain::{OrgKey, subject::Subject};
use futures_util::{FutureExt, StreamExt};

/// Hears that something happened to one thing of an org.
pub struct News(Subscriber);

impl News {
    /// Listens from now on: to `simulator`, `device`, … of that id.
    pub async fn about(
        wire: &Wire,
        org: &OrgKey,
        kind: &str,
        id: &str,
    ) -> Result<Self, ModelFault> {
        let (org, kind, id) = (org.to_string(), kind.to_owned(), id.to_owned());
        let subject = Subject::Event { org, kind, id }.to_string();
        let heard = wire.client.subscribe(subject).await;
        heard.map(Self).map_err(|error| ModelFault::Server(error.to_string()))
    }

    /// Waits until something happened, and forgets all that is known to have; `false`: nothing more can
    /// be heard.
    pub async fn wait(&mut self) -> bool {
        if self.0.next().await.is_none() {
            return false;
        }
        while let Some(Some(_)) = self.0.next().now_or_never() {}
        true
    }
}
