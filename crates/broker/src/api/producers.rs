//! InitProducerId for idempotent producers. Transactions are not offered.

use kafka::error::ErrorCode;
use kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::dispatch::Call;

pub(crate) async fn init(call: Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        return refuse(ErrorCode::UnsupportedVersion);
    }
    // A producer that names its id and epoch wants to go on after a failure: a fresh id serves it too.
    let core = call.core().clone();
    match spawn_blocking(move || core.node.producer_id()).await {
        Ok(Ok(producer_id)) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        Ok(Err(error)) => {
            error!(%error, "could not reserve producer ids");
            refuse(ErrorCode::KafkaStorageError)
        }
        Err(error) => {
            error!(%error, "could not reserve producer ids");
            refuse(ErrorCode::UnknownServerError)
        }
    }
}
